// Sends one good and one failing push to the simulated APNs with @parse/node-apn, which nobody here wrote.
//
//   REVEILLE_APNS_URL=https://localhost:2197 node push.mjs <sim folder> <good token> <dead token> <dead since, ms>
//
// Exits 0 only if the SDK reports both as it should.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

import apn from '@parse/node-apn';

const [folder, goodToken, deadToken, deadSinceMs] = process.argv.slice(2);
const address = new URL(process.env.REVEILLE_APNS_URL);
const credential = JSON.parse(readFileSync(join(folder, 'apns-credential.json'), 'utf8'));

const provider = new apn.Provider({
  token: { key: join(folder, 'apns-key.p8'), keyId: credential.key_id, teamId: credential.team_id },
  ca: readFileSync(join(folder, 'ca.pem')),
  address: address.hostname,
  port: Number(address.port),
});

const trigger = new apn.Notification();
trigger.topic = credential.topics[0];
trigger.pushType = 'background';
trigger.priority = 5;
trigger.expiry = Math.floor(Date.now() / 1000) + 3600;
trigger.collapseId = 'sync';
trigger.contentAvailable = 1;
trigger.payload = { reveille: { v: '1', head: '42' } };

try {
  const good = await provider.send(trigger, goodToken);
  console.log('good:', JSON.stringify(good));
  assert.deepEqual(good.failed, []);
  assert.deepEqual(good.sent.map((sent) => sent.device), [goodToken]);

  const dead = await provider.send(trigger, deadToken);
  console.log('dead:', JSON.stringify(dead));
  assert.deepEqual(dead.sent, []);
  assert.equal(dead.failed.length, 1);
  assert.equal(dead.failed[0].device, deadToken);
  assert.equal(dead.failed[0].status, 410);
  assert.equal(dead.failed[0].response.reason, 'Unregistered');
  assert.equal(dead.failed[0].response.timestamp, Number(deadSinceMs));
} finally {
  await provider.shutdown();
}
