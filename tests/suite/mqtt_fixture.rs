//! A gateway's MQTT side in this process, and a client that speaks packets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use forebay::access::{self, Access};
use forebay::base::SystemClock;
use forebay::broker::{self, Broker};
use forebay::doors::mqtt::codec::{
    Ack, ConnAck, Connect, Decoder, Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, Subscribe,
    SubscribeProperties, SubscriptionId, SubscriptionRequest,
};
use forebay::doors::mqtt::{self, Door};
use forebay::store::{self, Store};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use ProtocolVersion::{V5, V311};

/// Anonymous clients from this machine may do everything.
pub(crate) fn open_access() -> Access {
    Access::new(&access::Config { allow_anonymous_loopback: true, ..access::Config::default() }).unwrap()
}

pub(crate) struct Gateway {
    pub(crate) broker: Broker,
    pub(crate) addresses: Vec<SocketAddr>,
    store: Store,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: Option<tempfile::TempDir>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::with(mqtt::Config::default(), open_access()).await
    }

    pub(crate) async fn with(config: mqtt::Config, access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut gateway = Self::on(folder.path(), config, access).await;
        gateway._folder = Some(folder);
        gateway
    }

    /// On an existing folder, as after a restart.
    pub(crate) async fn on(folder: &Path, mut config: mqtt::Config, access: Access) -> Self {
        let clock = Arc::new(SystemClock::new());
        let store_config = store::Config { state_dir: folder.to_owned(), ..store::Config::default() };
        let (store, _) = Store::open(&store_config, &[broker::SCHEMA], clock.clone()).unwrap();
        let broker = Broker::open(broker::Config::default(), &store, clock.clone()).await.unwrap();
        for listener in &mut config.listener {
            listener.address.set_port(0);
        }
        let door = Door::bind(config, broker.clone(), Arc::new(access), clock).await.unwrap();
        let addresses = door.addresses();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(broker.clone().run(stop.clone()));
        tasks.spawn(door.serve(stop.clone()));
        Self { broker, addresses, store, stop, tasks, _folder: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) async fn client(&self, version: ProtocolVersion, id: &str) -> Client {
        self.connect(Connect::new(version, id)).await.0
    }

    pub(crate) async fn connect(&self, connect: Connect) -> (Client, ConnAck) {
        let mut client = Client::tcp(self.address(), connect.version).await;
        let ack = client.connect(connect).await;
        assert_eq!(ack.reason, ReasonCode::Success);
        (client, ack)
    }

    /// Stops as on SIGTERM.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close();
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(crate) struct Client {
    stream: Box<dyn Duplex>,
    decoder: Decoder,
    buffer: BytesMut,
    /// What came before the answer that was waited for.
    early: VecDeque<Packet>,
    pub(crate) version: ProtocolVersion,
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub(crate) fn qos1(topic: &str, number: u16, payload: &'static str) -> Publish {
    Publish::new(topic, Delivery::AtLeastOnce(id(number)), payload)
}

pub(crate) fn qos2(topic: &str, number: u16, payload: &'static str) -> Publish {
    Publish::new(topic, Delivery::ExactlyOnce(id(number)), payload)
}

pub(crate) fn persistent(version: ProtocolVersion, client: &str) -> Connect {
    let mut connect = Connect::new(version, client);
    connect.clean_start = false;
    connect.properties.session_expiry_interval_secs = Some(3600);
    connect
}

impl Client {
    pub(crate) async fn tcp(address: SocketAddr, version: ProtocolVersion) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), version)
    }

    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, version: ProtocolVersion) -> Self {
        let decoder = Decoder::from_server(version, usize::MAX);
        Self { stream: Box::new(stream), decoder, buffer: BytesMut::new(), early: VecDeque::new(), version }
    }

    pub(crate) async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.send(Packet::Connect(connect.into())).await;
        match self.next().await {
            Some(Packet::ConnAck(ack)) => *ack,
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.send_bytes(&bytes).await;
    }

    /// A broken pipe is seen by the next read.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn publish(&mut self, publish: Publish) {
        self.send(Packet::Publish(publish.into())).await;
    }

    /// The next packet; None when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        match self.early.pop_front() {
            Some(packet) => Some(packet),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(packet);
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(count) if count > 0) {
                return None;
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    /// Nothing came before the answer to a ping.
    pub(crate) async fn hears_nothing(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.next().await, Some(Packet::PingResp));
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        self.subscribe_with(SubscriptionRequest::new(filter, qos), None).await
    }

    pub(crate) async fn subscribe_with(&mut self, request: SubscriptionRequest, number: Option<u32>) -> ReasonCode {
        let subscription_id = number.and_then(SubscriptionId::new);
        let properties = SubscribeProperties { subscription_id, ..SubscribeProperties::default() };
        let subscribe = Subscribe { packet_id: id(77), properties, subscriptions: vec![request] };
        self.send(Packet::Subscribe(subscribe)).await;
        loop {
            match self.read().await {
                Some(Packet::SubAck(ack)) => return ack.reasons[0],
                // A server may send what matches before it answers (MQTT 5.0, 3.8.4).
                Some(early @ Packet::Publish(_)) => self.early.push_back(early),
                other => panic!("no SUBACK but {other:?}"),
            }
        }
    }

    pub(crate) async fn acked(&mut self) -> (u16, ReasonCode) {
        match self.next().await {
            Some(Packet::PubAck(Ack { packet_id, reason, .. })) => (packet_id.get(), reason),
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    /// The reason of the server's DISCONNECT; None if it just closed.
    pub(crate) async fn closed(&mut self) -> Option<ReasonCode> {
        loop {
            match self.next().await {
                Some(Packet::Disconnect(disconnect)) => return Some(disconnect.reason),
                Some(_) => {}
                None => return None,
            }
        }
    }
}
