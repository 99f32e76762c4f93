//! Any bytes, from either side and in every version: the decoder does not panic, does not loop, and what it accepts
//! is the same packet after writing and reading it once more.
#![no_main]

use bytes::BytesMut;
use forebay::doors::mqtt::codec::{Decoder, PacketKind, PacketRef, ProtocolVersion};
use libfuzzer_sys::fuzz_target;

const MAX_PACKET_BYTES: usize = 1 << 16;

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    let mut decoder = match choice % 5 {
        0 => Decoder::from_client(MAX_PACKET_BYTES),
        1 => after_connect(4),
        2 => after_connect(5),
        3 => Decoder::from_server(ProtocolVersion::V311, MAX_PACKET_BYTES),
        _ => Decoder::from_server(ProtocolVersion::V5, MAX_PACKET_BYTES),
    };
    let mut buffer = BytesMut::from(bytes);
    loop {
        let mut borrowing = decoder;
        let before = buffer.len();
        if let Ok(Some(frame)) = borrowing.frame(&buffer)
            && let Ok(PacketRef::Publish(publish)) = borrowing.read(frame)
        {
            let forwarded = publish.properties.forwarded();
            let mut bytes = Vec::new();
            forwarded.put(&mut bytes);
            assert_eq!(bytes.len(), forwarded.len());
        }
        let Ok(Some(packet)) = decoder.decode(&mut buffer) else { return };
        assert!(buffer.len() + 2 <= before);
        let version = decoder.version().expect("a packet was read");
        let mut written = BytesMut::new();
        packet.encode(version, &mut written).expect("what was read can be written");
        assert_eq!(packet.encoded_len(version), Ok(written.len()));
        // Written again, a packet may be a little longer: a reason code that was left out, for example.
        let mut fresh = match packet.kind() {
            PacketKind::Connect => Decoder::from_client(MAX_PACKET_BYTES),
            _ => decoder,
        };
        fresh.limit_packets_to(2 * MAX_PACKET_BYTES);
        assert_eq!(fresh.decode(&mut written), Ok(Some(packet)));
    }
});

fn after_connect(level: u8) -> Decoder {
    let mut decoder = Decoder::from_client(MAX_PACKET_BYTES);
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let body = [b"\0\x04MQTT".as_slice(), &[level, 2, 0, 0], properties, b"\0\x01a"].concat();
    let mut hello = BytesMut::from(&[0x10, body.len() as u8][..]);
    hello.extend_from_slice(&body);
    decoder.decode(&mut hello).expect("the bytes are a CONNECT");
    decoder
}
