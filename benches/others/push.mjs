// Pushes to the simulated providers in a plain loop, with a library that others use.
//
//   node push.mjs <JSON file>
//
// The file says library, fcm_url, apns_url, ca_pem, fcm_credential, apns_credential, pushes and in_flight. Exits 0 only if every push was
// accepted; a line of JSON on stdout then says how many were in a second.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import process from 'node:process';

const WARM_UP = 500;
const HOUR_S = 3600;

const task = readJson(process.argv[2]);
const start = { 'firebase-admin': firebaseAdmin, 'node-apn': nodeApn }[task.library];
assert(start, `no such library: ${task.library}`);
const { npmName, pushAll, close } = await start();
// A connection to APNs has one stream until its first push has shown that the token is good.
await pushAll(1, 1);
await pushAll(WARM_UP - 1, task.in_flight);

const began = performance.now();
await pushAll(task.pushes, task.in_flight);
const seconds = (performance.now() - began) / 1000;
await close();

const { version } = readJson(new URL(`node_modules/${npmName}/package.json`, import.meta.url));
const { library, pushes, in_flight } = task;
console.log(JSON.stringify({ library, version, pushes, in_flight, pushes_per_s: Math.round(pushes / seconds) }));

async function firebaseAdmin() {
  sendGooglesTrafficToSimulator();
  const { cert, deleteApp, initializeApp } = await import('firebase-admin/app');
  const { getMessaging } = await import('firebase-admin/messaging');
  const app = initializeApp({ credential: cert(task.fcm_credential) });
  const messaging = getMessaging(app);
  const message = (token) => ({
    token,
    data: wake(),
    android: { priority: 'normal', collapseKey: 'order:42', ttl: HOUR_S * 1000 },
  });
  // `sendEach` makes some 1.4 times as many as `send`, which is HTTP/1.1 on as many connections as there are sends in flight. It is HTTP/2,
  // though on a new connection for each call, and all messages of a call are answered before the next ones go.
  const pushAll = async (count, inFlight) => {
    for (let from = 0; from < count; from += inFlight) {
      const length = Math.min(inFlight, count - from);
      const { responses } = await messaging.sendEach(Array.from({ length }, (_, i) => message(`fcm:${from + i}`)));
      assert.equal(responses.length, length);
      for (const { success, error } of responses) assert(success, error);
    }
  };
  return { npmName: 'firebase-admin', pushAll, close: () => deleteApp(app) };
}

async function nodeApn() {
  const { default: apn } = await import('@parse/node-apn');
  const { team_id: teamId, key_id: keyId, private_key: key } = task.apns_credential;
  const { hostname: address, port } = new URL(task.apns_url);
  const provider = new apn.Provider({ token: { key, keyId, teamId }, address, port, ca: task.ca_pem, production: false });
  const push = async (device) => {
    const notification = new apn.Notification();
    notification.topic = 'com.example.shop';
    notification.pushType = 'background';
    notification.priority = 5;
    notification.expiry = Math.floor(Date.now() / 1000) + HOUR_S;
    notification.collapseId = 'order:42';
    notification.contentAvailable = 1;
    notification.payload = { reveille: wake() };
    const { sent, failed } = await provider.send(notification, device);
    assert.deepEqual(failed, []);
    assert.equal(sent[0].device, device);
  };
  const pushAll = async (count, inFlight) => {
    let next = 1;
    const loop = async () => {
      while (next <= count) await push((next++).toString(16).padStart(64, '0'));
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
  };
  return { npmName: '@parse/node-apn', pushAll, close: () => provider.shutdown() };
}

function wake() {
  return {
    v: '1',
    wake: 'wake_01h455vb4pex5vsknk084sn02q',
    head: '1287',
    feed: 'order:42',
    poll: 'https://push.example.com/v1/sync',
  };
}

// firebase-admin has no option for FCM's host, and leaves `token_uri` unread.
function sendGooglesTrafficToSimulator() {
  const { hostname: host, port } = new URL(task.fcm_url);
  const ca = task.ca_pem;

  const agent = https.globalAgent;
  const connectForToken = agent.createConnection.bind(agent);
  agent.createConnection = (options, ...rest) => connectForToken({ ...options, host, port, servername: '', ca }, ...rest);

  const connect = http2.connect;
  http2.connect = (_, options) => {
    const session = connect(task.fcm_url, { ...options, ca });
    const request = session.request.bind(session);
    // firebase-admin writes `https:` here, and the simulator's HTTP/2 library resets the stream for that colon.
    session.request = (headers) => request({ ...headers, ':scheme': 'https' });
    return session;
  };
}

function readJson(file) {
  return JSON.parse(readFileSync(file, 'utf8'));
}
