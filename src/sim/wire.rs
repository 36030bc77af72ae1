//! A thin layer under an HTTP/2 server that edits the frames the server's library offers no words for: it announces fewer concurrent
//! streams at first and more later, and it puts debug data into GOAWAY.
//!
//! h2 cannot change SETTINGS_MAX_CONCURRENT_STREAMS on a live connection nor attach debug data to a GOAWAY of its own. Both are what
//! Apple does, so the frames are rewritten on their way out: the first SETTINGS gets the first limit, every later one (h2 sends one
//! when its initial window is set, and awaits its acknowledgement) gets the last limit, and GOAWAY gets the data. Nothing is added
//! and nothing is taken out, so h2's own count of frames stays true. What comes in is not touched.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FRAME_HEADER_BYTES: usize = 9;
const TYPE_SETTINGS: u8 = 0x4;
const TYPE_GOAWAY: u8 = 0x7;
const FLAG_ACK: u8 = 0x1;
const SETTING_MAX_CONCURRENT_STREAMS: u16 = 0x3;
const SETTING_BYTES: usize = 6;

/// The numbers announced as SETTINGS_MAX_CONCURRENT_STREAMS.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamLimits {
    /// In the first SETTINGS frame.
    pub first: u32,
    /// In every later one.
    pub later: u32,
}

/// What the GOAWAY frames of a connection shall say, set from outside.
#[derive(Clone, Default)]
pub(super) struct Farewell(Arc<Mutex<Vec<u8>>>);

impl Farewell {
    /// Sets the debug data of GOAWAY frames not yet written.
    pub fn say(&self, debug_data: impl Into<Vec<u8>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = debug_data.into();
    }

    fn words(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the head of this file.
pub(super) struct Wire<Io> {
    io: Io,
    limits: Option<StreamLimits>,
    farewell: Farewell,
    /// Bytes of the current frame that go through as they are.
    passing: usize,
    /// A frame that is collected, because it is to be edited or its header is not complete.
    collected: Vec<u8>,
    /// Edited bytes on their way out.
    edited: Vec<u8>,
    written: usize,
    settings_sent: bool,
}

impl<Io> Wire<Io> {
    /// Wraps the server's side of a connection; without `limits` SETTINGS stay as they are.
    pub fn new(io: Io, limits: Option<StreamLimits>, farewell: Farewell) -> Self {
        Self {
            io,
            limits,
            farewell,
            passing: 0,
            collected: Vec::new(),
            edited: Vec::new(),
            written: 0,
            settings_sent: false,
        }
    }

    /// How many bytes at the start of `buf` may go out unread.
    fn plain_prefix(&self, buf: &[u8]) -> usize {
        let mut end = self.passing;
        while let Some(header) = buf.get(end..end.saturating_add(FRAME_HEADER_BYTES)).and_then(FrameHeader::read) {
            if self.edits(header) {
                break;
            }
            end += FRAME_HEADER_BYTES + header.payload_bytes;
        }
        end.min(buf.len())
    }

    fn edits(&self, header: FrameHeader) -> bool {
        match header.kind {
            TYPE_SETTINGS => self.limits.is_some() && header.flags & FLAG_ACK == 0,
            TYPE_GOAWAY => true,
            _ => false,
        }
    }

    /// Takes bytes of `buf` into the collected frame and edits it once it is complete; returns how many were taken.
    fn collect(&mut self, buf: &[u8]) -> usize {
        let have = self.collected.len();
        let header = FrameHeader::read(&self.collected);
        let whole = header.map_or(FRAME_HEADER_BYTES, |header| FRAME_HEADER_BYTES + header.payload_bytes);
        let taken = buf.len().min(whole.saturating_sub(have));
        self.collected.extend_from_slice(buf.get(..taken).unwrap_or_default());
        if let Some(header) = FrameHeader::read(&self.collected) {
            if !self.edits(header) {
                self.passing = header.payload_bytes;
                self.edited = std::mem::take(&mut self.collected);
            } else if self.collected.len() == FRAME_HEADER_BYTES + header.payload_bytes {
                let frame = std::mem::take(&mut self.collected);
                self.edited = self.edit(header, frame.get(FRAME_HEADER_BYTES..).unwrap_or_default());
            }
        }
        taken
    }

    fn edit(&mut self, header: FrameHeader, payload: &[u8]) -> Vec<u8> {
        let mut payload = payload.to_vec();
        match (header.kind, self.limits) {
            (TYPE_GOAWAY, _) => payload.extend_from_slice(&self.farewell.words()),
            (TYPE_SETTINGS, Some(limits)) => {
                let limit = if self.settings_sent { limits.later } else { limits.first };
                self.settings_sent = true;
                payload = with_stream_limit(&payload, limit);
            }
            _ => {}
        }
        let mut frame = header.with_length(payload.len());
        frame.extend_from_slice(&payload);
        frame
    }
}

/// The settings in `payload`, with SETTINGS_MAX_CONCURRENT_STREAMS replaced or added.
fn with_stream_limit(payload: &[u8], limit: u32) -> Vec<u8> {
    let id = SETTING_MAX_CONCURRENT_STREAMS.to_be_bytes();
    let mut settings: Vec<u8> =
        payload.chunks(SETTING_BYTES).filter(|s| !s.starts_with(&id)).flatten().copied().collect();
    settings.extend_from_slice(&id);
    settings.extend_from_slice(&limit.to_be_bytes());
    settings
}

#[derive(Clone, Copy)]
struct FrameHeader {
    payload_bytes: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl FrameHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s0, s1, s2, s3, ..] = *bytes else {
            return None;
        };
        let payload_bytes = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Self { payload_bytes, kind, flags, stream: [s0, s1, s2, s3] })
    }

    fn with_length(self, payload_bytes: usize) -> Vec<u8> {
        let [.., a, b, c] = payload_bytes.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream;
        vec![a, b, c, self.kind, self.flags, s0, s1, s2, s3]
    }
}

impl<Io: AsyncWrite + Unpin> Wire<Io> {
    fn poll_edited(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.edited.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.edited.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Wire<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_edited(cx))?;
        let plain = if this.collected.is_empty() { this.plain_prefix(buf) } else { 0 };
        if plain == 0 {
            return Poll::Ready(Ok(this.collect(buf)));
        }
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, buf.get(..plain).unwrap_or_default()))?;
        this.passed(buf, n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_edited(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_edited(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<Io> Wire<Io> {
    /// Notes that the first `n` bytes of `buf` went out unread: where in a frame that leaves us.
    fn passed(&mut self, buf: &[u8], n: usize) {
        let mut end = self.passing;
        while end < n {
            let Some(header) = buf.get(end..).and_then(FrameHeader::read) else {
                break;
            };
            let payload_from = end + FRAME_HEADER_BYTES;
            if payload_from > n {
                // The header itself was cut: the rest of it goes unread too.
                self.passing = payload_from + header.payload_bytes - n;
                return;
            }
            end = payload_from + header.payload_bytes;
        }
        self.passing = end.saturating_sub(n);
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Wire<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { payload_bytes: 0, kind, flags, stream: [0, 0, 0, 1] };
        [header.with_length(payload.len()), payload.to_vec()].concat()
    }

    const WINDOW: [u8; 6] = [0, 4, 0, 0, 0xff, 0xff];
    const ONE: [u8; 6] = [0, 3, 0, 0, 0, 1];
    const MANY: [u8; 6] = [0, 3, 0, 0, 3, 0xe8];

    #[tokio::test]
    async fn only_settings_and_goaway_change_however_the_bytes_are_cut() {
        let (data, ping, ack) = (frame(0, 1, &[7; 40]), frame(6, 0, &[1; 8]), frame(TYPE_SETTINGS, FLAG_ACK, &[]));
        let written = [
            frame(TYPE_SETTINGS, 0, &[MANY, WINDOW].concat()),
            ack.clone(),
            data.clone(),
            frame(TYPE_SETTINGS, 0, &WINDOW),
            ping.clone(),
            frame(TYPE_GOAWAY, 0, &[0; 8]),
            data.clone(),
        ]
        .concat();
        let expected = [
            frame(TYPE_SETTINGS, 0, &[WINDOW, ONE].concat()),
            ack,
            data.clone(),
            frame(TYPE_SETTINGS, 0, &[WINDOW, MANY].concat()),
            ping,
            frame(TYPE_GOAWAY, 0, b"\0\0\0\0\0\0\0\0bye"),
            data,
        ]
        .concat();
        for (cut, pipe) in [(1, 1), (3, 5), (9, 4), (10, 64), (49, 7), (1000, 3), (1000, 1000)] {
            let (io, mut far) = tokio::io::duplex(pipe);
            let farewell = Farewell::default();
            farewell.say("bye");
            let mut wire = Wire::new(io, Some(StreamLimits { first: 1, later: 1000 }), farewell);
            let mut seen = Vec::new();
            let write = async {
                for piece in written.chunks(cut) {
                    wire.write_all(piece).await.unwrap();
                }
                wire.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(write, far.read_to_end(&mut seen));
            read.unwrap();
            assert_eq!(seen, expected, "cut {cut}, pipe {pipe}");
        }
    }
}
