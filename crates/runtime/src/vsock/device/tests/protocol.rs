//! What is said to the guest and to host programs, packet by packet.

use super::{
    super::{
        packet::{NO_MORE_RECEIVE, NO_MORE_SEND},
        switch::CONNECTIONS,
    },
    *,
};

const BOTH: u32 = NO_MORE_RECEIVE | NO_MORE_SEND;

#[test]
fn bytes_flow_both_ways_once_the_guest_answers() {
    let mut bench = Bench::new();
    let mut program = bench.dial(b"CONNECT 10");
    assert_eq!(bench.packets(), []);
    program.write_all(b"24\nearly").unwrap();
    let asked = bench.packet();
    assert_eq!((asked.op, asked.ports.guest, asked.credit.buffer), (Op::Request, 1024, BUFFER as u32));
    assert_eq!(bench.packets(), []);

    bench.send(asked.ports, Op::Response, 0, ROOMY, &[]);
    let early = bench.packet();
    assert_eq!((early.op, early.data), (Op::Data, b"early".to_vec()));

    bench.data(asked.ports, b"hello");
    assert_eq!(drain(&mut program), format!("OK {}\nhello", asked.ports.host).into_bytes());
    program.write_all(b"back").unwrap();
    let back = bench.packet();
    assert_eq!((back.data, back.credit.consumed), (b"back".to_vec(), 5));
}

#[test]
fn only_a_connect_line_is_a_greeting() {
    // (what the program says, the port it gets; None is a closed socket)
    let rows: [(&[u8], Option<u32>); 9] = [
        (b"CONNECT 1\n", Some(1)),
        (b"connect 4294967295\r\n", Some(u32::MAX)),
        (b"CONNECT 4294967296\n", None),
        (b"CONNECT\n", None),
        (b"CONNECT x\n", None),
        (b"GET / HTTP/1.1\n", None),
        (b"\n", None),
        (b"\xff\xfe\n", None),
        (b"CONNECT 00000000000000000000000000000000000001\n", None),
    ];
    for (line, want) in rows {
        let mut bench = Bench::new();
        let mut program = bench.dial(line);
        let got = bench.packets().first().map(|packet| packet.ports.guest);
        assert_eq!(got, want, "{:?}", String::from_utf8_lossy(line));
        assert_eq!(closed(&mut program), want.is_none());
        assert_eq!(bench.switch.len(), usize::from(want.is_some()));
    }
}

#[test]
fn the_guest_never_gets_more_than_it_has_room_for() {
    let mut bench = Bench::new();
    let (mut program, ports) = bench.connected(Credit { buffer: 10, consumed: 0 });
    program.write_all(b"0123456789abcdef").unwrap();
    let packets = bench.packets();
    assert_eq!(packets[0].data, b"0123456789");
    // Asked once, however often the ring offers a place.
    assert_eq!(packets[1].op, Op::CreditRequest);
    assert_eq!(packets.len(), 2);
    assert_eq!(bench.packets(), []);

    bench.send(ports, Op::CreditUpdate, 0, Credit { buffer: 10, consumed: 4 }, &[]);
    assert_eq!(bench.packets()[0].data, b"abcd");
    // A guest that claims what cannot be gets nothing.
    bench.send(ports, Op::CreditUpdate, 0, Credit { buffer: 10, consumed: 400 }, &[]);
    assert!(bench.packets().iter().all(|packet| packet.op != Op::Data));
    bench.send(ports, Op::CreditUpdate, 0, Credit { buffer: u32::MAX, consumed: 14 }, &[]);
    assert_eq!(bench.packet().data, b"ef");
}

#[test]
fn a_slow_program_holds_the_guest_back_and_loses_nothing() {
    let mut bench = Bench::new();
    let (mut program, ports) = bench.connected(ROOMY);
    let bytes = pattern(4 << 20);
    let (mut sent, mut told, mut got) = (0, 0, Vec::new());
    while got.len() < bytes.len() {
        // As much as an honest guest may send.
        while sent < bytes.len() && sent - told < BUFFER {
            let end = bytes.len().min(sent + MAX_PAYLOAD.min(BUFFER - (sent - told)));
            bench.data(ports, &bytes[sent..end]);
            sent = end;
        }
        for packet in bench.packets() {
            assert_eq!(packet.op, Op::CreditUpdate);
            told = packet.credit.consumed as usize;
        }
        if sent - told == BUFFER || sent == bytes.len() {
            let more = drain(&mut program);
            assert!(!more.is_empty(), "stuck at {sent} sent, {told} told, {} read", got.len());
            got.extend(more);
        }
    }
    assert!(got == bytes);
}

#[test]
fn a_guest_that_sends_beyond_its_credit_is_cut_off() {
    let mut bench = Bench::new();
    let (_program, ports) = bench.connected(ROOMY);
    let mut sent = 0;
    while bench.switch.len() == 1 {
        bench.data(ports, &[7; MAX_PAYLOAD]);
        sent += MAX_PAYLOAD;
        assert!(sent < 4 << 20, "nothing stops the guest");
        if bench.ops().contains(&Op::Reset) {
            assert_eq!(bench.switch.len(), 0);
        }
    }
}

#[test]
fn a_program_that_ends_its_half_still_gets_the_answer() {
    let mut bench = Bench::new();
    let (mut program, ports) = bench.connected(ROOMY);
    program.write_all(b"question").unwrap();
    program.shutdown(std::net::Shutdown::Write).unwrap();
    let packets = bench.packets();
    assert_eq!(
        packets.iter().map(|p| (p.op, p.flags)).collect::<Vec<_>>(),
        [(Op::Data, 0), (Op::Shutdown, NO_MORE_SEND)]
    );
    bench.data(ports, b"answer");
    bench.send(ports, Op::Shutdown, BOTH, ROOMY, &[]);
    assert_eq!(bench.ops(), [Op::Reset]);
    assert_eq!(drain(&mut program), b"answer");
    assert_eq!(bench.switch.len(), 0);
}

#[test]
fn a_guest_that_ends_its_half_still_gets_the_rest() {
    let mut bench = Bench::new();
    let (mut program, ports) = bench.connected(ROOMY);
    bench.data(ports, b"last");
    bench.send(ports, Op::Shutdown, NO_MORE_SEND, ROOMY, &[]);
    assert_eq!(drain(&mut program), b"last");
    assert!(closed(&mut program));
    program.write_all(b"rest").unwrap();
    assert_eq!(bench.packet().data, b"rest");
    // More after the end is a lie.
    bench.data(ports, b"x");
    assert_eq!(bench.ops(), [Op::Reset]);
}

#[test]
fn what_the_guest_sent_arrives_even_when_it_left() {
    for leave in [Op::Shutdown, Op::Reset] {
        let mut bench = Bench::new();
        let (mut program, ports) = bench.connected(ROOMY);
        let bytes = pattern(BUFFER);
        for part in bytes.chunks(MAX_PAYLOAD) {
            bench.data(ports, part);
        }
        bench.send(ports, leave, BOTH, ROOMY, &[]);
        // The kernel's patience with an unanswered end.
        bench.send(ports, Op::Reset, 0, ROOMY, &[]);
        let mut got = Vec::new();
        while bench.switch.len() > 0 {
            got.extend(drain(&mut program));
            bench.settle();
        }
        got.extend(drain(&mut program));
        assert!(got == bytes, "{leave:?}: {}", got.len());
        assert_eq!(bench.packets(), []);
    }
}

#[test]
fn the_guest_learns_that_a_program_left_however_far_it_was() {
    let (nothing, reset, shutdown): (&[Op], &[Op], &[Op]) = (&[], &[Op::Reset], &[Op::Shutdown]);
    for (name, want) in
        [("greeting", nothing), ("asking", nothing), ("requested", reset), ("open", shutdown), ("ended half", shutdown)]
    {
        let mut bench = Bench::new();
        let program = match name {
            "greeting" => bench.dial(b"CONN"),
            "asking" => bench.dial(b"CONNECT 1\n"),
            "requested" => {
                let program = bench.dial(b"CONNECT 1\n");
                assert_eq!(bench.ops(), [Op::Request]);
                program
            }
            "open" => bench.connected(ROOMY).0,
            _ => {
                let (program, _) = bench.connected(ROOMY);
                program.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(bench.ops(), [Op::Shutdown]);
                program
            }
        };
        bench.settle();
        drop(program);
        assert_eq!(bench.ops(), want, "{name}");
        assert_eq!(bench.switch.len(), 0, "{name}");
    }
}

#[test]
fn bytes_for_a_program_that_left_do_not_stop_the_guest() {
    let mut bench = Bench::new();
    // Without room at the guest, the program's own bytes keep the connection.
    let (mut program, ports) = bench.connected(Credit { buffer: 0, consumed: 0 });
    program.write_all(b"unread").unwrap();
    bench.settle();
    drop(program);
    bench.settle();
    for _ in 0..64 {
        bench.send(ports, Op::Data, 0, Credit { buffer: 0, consumed: 0 }, &[1; MAX_PAYLOAD]);
        assert!(!bench.ops().contains(&Op::Reset));
    }
    bench.send(ports, Op::CreditUpdate, 0, ROOMY, &[]);
    assert_eq!(bench.ops(), [Op::Data, Op::Shutdown]);
    assert_eq!(bench.switch.len(), 0);
}

#[test]
fn strangers_are_reset_and_resets_are_not_answered() {
    let mut bench = Bench::new();
    let (_program, ports) = bench.connected(ROOMY);
    let stranger = Ports { host: 1025, guest: 9 };
    let half_known = Ports { host: ports.host, guest: 9 };
    for op in [Op::Request, Op::Response, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest] {
        for ports in [stranger, half_known] {
            bench.send(ports, op, 0, ROOMY, &[]);
            let answer = bench.packet();
            assert_eq!((answer.op, answer.ports), (Op::Reset, ports), "{op:?}");
        }
    }
    bench.send(stranger, Op::Reset, 0, ROOMY, &[]);
    assert_eq!(bench.packets(), []);
    assert_eq!(bench.switch.len(), 1);
}

#[test]
fn a_guest_cannot_touch_a_program_that_has_not_asked_it() {
    let mut bench = Bench::new();
    let mut program = bench.dial(b"CONNECT 5\n");
    bench.settle();
    // The first port is easily guessed.
    for guest in [0, 5] {
        bench.send(Ports { host: 1 << 30, guest }, Op::Response, 0, ROOMY, &[]);
        bench.send(Ports { host: 1 << 30, guest }, Op::Reset, 0, ROOMY, &[]);
    }
    assert!(bench.ops().contains(&Op::Request));
    assert!(!closed(&mut program));
}

#[test]
fn what_does_not_belong_into_a_phase_ends_the_connection() {
    for op in [Op::Request, Op::Response] {
        let mut bench = Bench::new();
        let (mut program, ports) = bench.connected(ROOMY);
        bench.send(ports, op, 0, ROOMY, &[]);
        assert_eq!(bench.ops(), [Op::Reset], "{op:?}");
        assert!(closed(&mut program));
    }
    for op in [Op::Request, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest] {
        let mut bench = Bench::new();
        let mut program = bench.dial(b"CONNECT 1\n");
        let ports = bench.packet().ports;
        bench.send(ports, op, 0, ROOMY, &[]);
        assert_eq!(bench.ops(), [Op::Reset], "{op:?}");
        assert!(closed(&mut program));
    }
}

#[test]
fn a_refused_program_sees_its_socket_closed() {
    let mut bench = Bench::new();
    let mut program = bench.dial(b"CONNECT 1\n");
    let ports = bench.packet().ports;
    bench.send(ports, Op::Reset, 0, ROOMY, &[]);
    assert!(closed(&mut program));
    assert_eq!(bench.packets(), []);
}

#[test]
fn a_new_driver_is_asked_again_and_knows_nothing_else() {
    let mut bench = Bench::new();
    let (mut open, _) = bench.connected(ROOMY);
    let mut asked = bench.dial(b"CONNECT 1\n");
    assert_eq!(bench.ops(), [Op::Request]);
    let mut waiting = bench.dial(b"CONNECT 2\n");
    bench.send(Ports { host: 0, guest: 0 }, Op::Data, 0, ROOMY, &[]);
    bench.settle();
    bench.switch.driver_started();
    assert!(closed(&mut open));
    let mut asked_for: Vec<_> = bench.packets().iter().map(|packet| (packet.op as u16, packet.ports.guest)).collect();
    asked_for.sort_unstable();
    assert_eq!(asked_for, [(Op::Request as u16, 1), (Op::Request as u16, 2)]);
    assert!(!closed(&mut asked) && !closed(&mut waiting));
}

#[test]
fn what_is_owed_to_strangers_is_bounded() {
    let mut bench = Bench::new();
    let mut sent = 0;
    while !bench.switch.saturated() {
        bench.send(Ports { host: sent, guest: 1 }, Op::Request, 0, ROOMY, &[]);
        sent += 1;
        assert!(sent < 10_000);
    }
    assert_eq!(bench.packets().len(), sent as usize);
    assert!(!bench.switch.saturated());
}

#[test]
fn connections_take_turns() {
    let mut bench = Bench::new();
    let mut programs: Vec<_> = (0..3).map(|_| bench.connected(ROOMY)).collect();
    for (program, _) in &mut programs {
        program.write_all(&[1; 100_000]).unwrap();
    }
    bench.settle();
    let mut buffer = [0; HEADER + 1000];
    let mut next_host = || {
        let len = bench.switch.next_packet(&mut buffer).unwrap();
        Seen::decode(&buffer[..len]).ports.host
    };
    let hosts: Vec<u32> = (0..6).map(|_| next_host()).collect();
    assert_eq!(hosts[..3], hosts[3..]);
    assert!(hosts[0] != hosts[1] && hosts[1] != hosts[2]);
}

#[test]
fn there_is_a_limit_to_connections() {
    let mut bench = Bench::new();
    let programs: Vec<_> = (0..CONNECTIONS).map(|_| bench.dial(b"CONN")).collect();
    let (_program, device) = UnixStream::pair().unwrap();
    assert_eq!(bench.switch.accept(device).unwrap_err().kind(), std::io::ErrorKind::QuotaExceeded);
    drop(programs);
    bench.settle();
    bench.dial(b"CONNECT 1\n");
    assert_eq!(bench.switch.len(), 1);
}
