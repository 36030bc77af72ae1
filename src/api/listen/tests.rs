//! Who leaves hyper while they wait gets what they would have got, whatever else happens on their connection.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{Request, Version, header::CONTENT_LENGTH},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);
/// In bytes, what the kernel takes for each side.
const SMALL: u32 = 8 << 10;
/// In bytes, more than that, and less than hyper would send before it asks for more.
const LONG: usize = 256 << 10;

/// What goes on behind the routes.
#[derive(Clone)]
struct Backstage {
    /// Each permit is an answer to `/wait`, or a line of `/lines`.
    news: Arc<Semaphore>,
    /// Each permit is one who has begun to wait.
    begun: Arc<Semaphore>,
    /// Of those who wait, one each, for as long as they do.
    here: mpsc::Sender<()>,
}

impl Backstage {
    async fn next(&self) {
        self.begun.add_permits(1);
        self.news.acquire().await.unwrap().forget();
    }
}

async fn wait(State(backstage): State<Backstage>, peer: Peer) -> &'static str {
    let _here = backstage.here.clone();
    peer.waits();
    backstage.next().await;
    "news"
}

/// Ends with the third.
async fn lines(State(backstage): State<Backstage>, peer: Peer) -> Body {
    peer.waits();
    let here = backstage.here.clone();
    let lines = stream::iter(1..=3).then(move |line| {
        let (backstage, _here) = (backstage.clone(), here.clone());
        async move {
            backstage.next().await;
            Ok::<_, Infallible>(format!("line {line}\n"))
        }
    });
    Body::from_stream(lines)
}

async fn long(State(backstage): State<Backstage>, peer: Peer) -> Body {
    peer.waits();
    let end = async move {
        backstage.next().await;
        "end".to_owned()
    };
    let text = stream::iter(["x".repeat(LONG)]).chain(stream::once(end));
    Body::from_stream(text.map(Ok::<_, Infallible>))
}

struct Served {
    address: SocketAddr,
    backstage: Backstage,
    here: mpsc::Receiver<()>,
    stop: CancellationToken,
    work: TaskTracker,
}

impl Served {
    async fn start() -> Self {
        let (tell, here) = mpsc::channel(1);
        let news = || Arc::new(Semaphore::new(0));
        let backstage = Backstage { news: news(), begun: news(), here: tell };
        let (stop, work) = (CancellationToken::new(), TaskTracker::new());
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SMALL).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, router(&backstage), &stop, &work);
        Self { address, backstage, here, stop, work }
    }

    async fn client(&self) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Client { tcp }
    }

    /// Until so many have begun to wait.
    async fn begun(&self, count: u32) {
        timeout(SOON, self.backstage.begun.acquire_many(count)).await.expect("they wait").unwrap().forget();
    }

    /// The same, and they get what they wait for.
    async fn news(&self, count: u32) {
        self.begun(count).await;
        self.backstage.news.add_permits(count as usize);
    }

    /// Until nobody waits any more.
    async fn until_left(self) {
        let Self { backstage, mut here, stop, work, .. } = self;
        stop.cancel();
        work.close();
        drop(backstage);
        timeout(SOON, work.wait()).await.expect("a connection lives on whose client has gone");
        assert!(here.recv().await.is_none());
    }
}

fn router(backstage: &Backstage) -> Router {
    let router = Router::new().route("/wait", get(wait)).route("/lines", get(lines));
    let router = router.route("/now", get(async || "now")).route("/long", get(long));
    let router = router.route("/echo", post(async |body: String| body));
    router.route("/version", get(async |version: Version| format!("{version:?}"))).with_state(backstage.clone())
}

struct Client {
    tcp: TcpStream,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.tcp.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, paths: &[&str]) {
        let requests: Vec<_> = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n")).collect();
        self.send(&requests.concat()).await;
    }

    /// Reads up to the next of these.
    async fn until(&mut self, end: &str) -> String {
        let mut read = String::new();
        while !read.ends_with(end) {
            read.push(char::from(timeout(SOON, self.tcp.read_u8()).await.expect("an answer").unwrap()));
        }
        read
    }

    /// The body of the next answer, and whether its head says that it is the last.
    async fn answer(&mut self) -> Option<(String, bool)> {
        if timeout(SOON, self.tcp.peek(&mut [0])).await.expect("an answer").unwrap() == 0 {
            return None;
        }
        let head = self.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") || head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        let field =
            |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()));
        let length = field(CONTENT_LENGTH.as_str()).expect("its length").parse().unwrap();
        let mut body = vec![0; length];
        timeout(SOON, self.tcp.read_exact(&mut body)).await.expect("an answer").unwrap();
        Some((String::from_utf8(body).unwrap(), field("connection").is_some_and(|option| option == "close")))
    }

    async fn body(&mut self) -> String {
        self.answer().await.expect("an answer").0
    }
}

#[tokio::test]
async fn what_waits_leaves_hyper() {
    let served = Served::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (request, left) in [
        ("GET /wait HTTP/1.1\r\n\r\n", "an answer"),
        ("GET /wait HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", "an answer"),
        ("GET /wait HTTP/1.1\r\nconnection: close\r\n\r\n", "the last answer"),
        ("GET /lines HTTP/1.1\r\n\r\n", "a body"),
        ("GET /lines HTTP/1.1\r\nconnection: keep-alive, Close\r\n\r\n", "the last body"),
        ("GET /now HTTP/1.1\r\nconnection: close\r\n\r\n", "nothing"),
    ] {
        let mut client = Client { tcp: TcpStream::connect(address).await.unwrap() };
        client.send(request).await;
        let (tcp, address) = listener.accept().await.unwrap();
        let connection = Connection { router: router(&served.backstage), address, stop: CancellationToken::new() };
        let waiting = timeout(SOON, connection.http1(Wire::new(tcp), None)).await.expect(request).unwrap();
        let found = match waiting.map(|(_, waiting)| waiting) {
            Some(Waiting::Answer { is_last: false, .. }) => "an answer",
            Some(Waiting::Answer { is_last: true, .. }) => "the last answer",
            Some(Waiting::Body { is_last: false, .. }) => "a body",
            Some(Waiting::Body { is_last: true, .. }) => "the last body",
            None => "nothing",
        };
        assert_eq!(found, left, "{request}");
    }
}

#[tokio::test]
async fn who_has_waited_is_answered_and_asks_again() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for _ in 0..3 {
        client.ask(&["/wait"]).await;
        served.news(1).await;
        assert_eq!(client.body().await, "news");
        client.ask(&["/now"]).await;
        assert_eq!(client.body().await, "now");
    }
}

#[tokio::test]
async fn requests_that_come_before_their_turn_are_answered_in_order() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.ask(&["/now", "/wait", "/now", "/wait"]).await;
    assert_eq!(client.body().await, "now");
    served.news(1).await;
    assert_eq!(client.body().await, "news");
    assert_eq!(client.body().await, "now");
    // While it waits, one more.
    client.ask(&["/now"]).await;
    served.news(1).await;
    assert_eq!(client.body().await, "news");
    assert_eq!(client.body().await, "now");
}

#[tokio::test]
async fn nothing_is_lost_of_what_is_still_on_its_way() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.ask(&["/long"]).await;
    // It waits for more before the client has read anything.
    served.news(1).await;
    client.until("\r\n\r\n").await;
    assert_eq!(client.until("\r\n").await, format!("{LONG:X}\r\n"));
    assert_eq!(client.until("\r\n").await.len(), LONG + 2);
    assert_eq!(client.until("0\r\n\r\n").await, "3\r\nend\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_stream_goes_on_and_the_connection_after_it() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.ask(&["/lines", "/now"]).await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    for line in 1..=3 {
        served.news(1).await;
        assert_eq!(client.until("\n\r\n").await, format!("7\r\nline {line}\n\r\n"));
    }
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    assert_eq!(client.body().await, "now");
}

#[tokio::test]
async fn a_connection_ends_with_the_request_that_says_so() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.send("GET /wait HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    served.news(1).await;
    assert_eq!(client.answer().await, Some(("news".to_owned(), true)));
    assert!(client.answer().await.is_none());

    let mut client = served.client().await;
    client.send("GET /lines HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    for _ in 0..3 {
        served.news(1).await;
    }
    client.until("\r\n0\r\n\r\n").await;
    assert!(client.answer().await.is_none());
}

#[tokio::test]
async fn a_client_that_goes_is_waited_for_no_longer() {
    for path in ["/wait", "/lines"] {
        let served = Served::start().await;
        let mut client = served.client().await;
        client.ask(&[path]).await;
        served.begun(1).await;
        drop(client);
        served.until_left().await;
    }
}

#[tokio::test]
async fn who_waits_at_the_stop_is_answered_once_more() {
    let served = Served::start().await;
    let (mut waits, mut idle, silent) = (served.client().await, served.client().await, served.client().await);
    waits.ask(&["/wait"]).await;
    idle.ask(&["/now"]).await;
    assert_eq!(idle.body().await, "now");
    served.stop.cancel();
    served.work.close();
    assert!(idle.answer().await.is_none());
    served.news(1).await;
    assert_eq!(waits.answer().await, Some(("news".to_owned(), true)));
    assert!(waits.answer().await.is_none());
    timeout(SOON, served.work.wait()).await.expect("all connections end");
    drop(silent);
}

#[tokio::test]
async fn what_cannot_leave_hyper_waits_all_the_same() {
    let served = Served::start().await;
    for (request, is_last) in [
        ("GET /wait HTTP/1.0\r\n\r\n", true),
        ("GET /wait HTTP/1.1\r\nhost: relay\r\ncontent-length: 4\r\n\r\nbody", false),
    ] {
        let mut client = served.client().await;
        client.send(request).await;
        served.news(1).await;
        assert_eq!(client.body().await, "news", "{request}");
        if is_last {
            assert!(client.answer().await.is_none(), "{request}");
        } else {
            client.ask(&["/wait"]).await;
            served.news(1).await;
            assert_eq!(client.body().await, "news", "{request}");
        }
    }
}

#[tokio::test]
async fn both_versions_are_spoken_on_one_port_however_slowly_they_begin() {
    let served = Served::start().await;
    let mut client = served.client().await;
    // Its first letter could be the beginning of HTTP/2.
    for byte in "POST /echo HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\nhi".chars() {
        client.send(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.body().await, "hi");
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let (http2, connection) = h2::client::handshake(tcp).await.unwrap();
    served.work.spawn(async move { connection.await.unwrap() });
    let answer = async |path: &str| {
        let mut http2 = http2.clone().ready().await.unwrap();
        let request = Request::get(format!("http://relay{path}")).body(()).unwrap();
        let mut body = http2.send_request(request, true).unwrap().0.await.unwrap().into_body();
        let mut text = String::new();
        while let Some(data) = body.data().await {
            text += std::str::from_utf8(&data.unwrap()).unwrap();
        }
        text
    };
    assert_eq!(answer("/version").await, "HTTP/2.0");
    assert_eq!(tokio::join!(answer("/wait"), served.news(1)).0, "news");
    assert_eq!(
        tokio::join!(answer("/lines"), served.news(1), served.news(1), served.news(1)).0,
        "line 1\nline 2\nline 3\n"
    );
    served.stop.cancel();
    served.work.close();
    drop(http2);
    timeout(SOON, served.work.wait()).await.expect("all connections end");
}
