//! One question, one answer. Pods ask, and send what they like: whatever is no
//! question is left alone.

use std::{net::IpAddr, str::FromStr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, PTR, SRV},
    },
};

use super::zone::{DOMAIN, Entry, Zone};

/// Endpoints come and go: how long answers may be kept, in seconds.
const KEEP: u32 = 5;
/// The longest answer for whoever does not say more (RFC 1035), and the longest
/// that passes every network in one piece.
const SHORTEST: u16 = 512;
const LONGEST: u16 = 1232;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// In a datagram: the answer has to fit into one.
    Udp,
    /// In a stream: it may be as long as its length can say.
    Tcp,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer.
    Known(Vec<u8>),
    /// Others know it.
    Ask,
    /// It is no question.
    Nothing,
}

/// Answers `question` from `zone`.
pub fn answer(question: &[u8], zone: &Zone, over: Over) -> Reply {
    let Ok(asked) = Message::from_vec(question) else { return Reply::Nothing };
    let meta = &asked.metadata;
    let (MessageType::Query, OpCode::Query, [query]) = (meta.message_type, meta.op_code, &asked.queries[..]) else {
        return Reply::Nothing;
    };
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let ours = name == DOMAIN || name.ends_with(&format!(".{DOMAIN}"));
    let found = zone.find(&name);
    if found.is_none() && !ours {
        return Reply::Ask;
    }
    let mut reply = Message::response(meta.id, OpCode::Query);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = meta.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    match found {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(entries) => drop(reply.add_answers(records(query, &entries))),
    }
    if asked.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST);
        reply.set_edns(edns);
    }
    let longest = match over {
        Over::Udp => asked.max_payload().clamp(SHORTEST, LONGEST),
        Over::Tcp => u16::MAX,
    };
    fit(reply, longest.into()).map_or(Reply::Nothing, Reply::Known)
}

fn records(query: &Query, entries: &[Entry]) -> Vec<Record> {
    let wanted = query.query_type();
    let data = |entry: &Entry| {
        Some(match (entry, wanted) {
            (Entry::Address(IpAddr::V4(address)), RecordType::A | RecordType::ANY) => RData::A(A(*address)),
            (Entry::Address(IpAddr::V6(address)), RecordType::AAAA | RecordType::ANY) => RData::AAAA(AAAA(*address)),
            (Entry::Alias(name), _) => RData::CNAME(CNAME(absolute(name)?)),
            (Entry::Port(port, at), RecordType::SRV | RecordType::ANY) => {
                RData::SRV(SRV::new(0, 100, *port, absolute(at)?))
            }
            (Entry::Pointer(name), RecordType::PTR | RecordType::ANY) => RData::PTR(PTR(absolute(name)?)),
            _ => return None,
        })
    };
    entries.iter().filter_map(data).map(|data| Record::from_rdata(query.name().clone(), KEEP, data)).collect()
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_str(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// As many answers as fit, and a word that there are more: who wants them all asks
/// again over TCP, for others any endpoint will do.
fn fit(mut reply: Message, longest: usize) -> Option<Vec<u8>> {
    let whole = reply.to_vec().ok()?;
    if whole.len() <= longest {
        return Some(whole);
    }
    reply.metadata.truncation = true;
    let all = std::mem::take(&mut reply.answers);
    let mut first = |count: usize| {
        reply.answers = all[..count].to_vec();
        reply.to_vec().ok().filter(|bytes| bytes.len() <= longest)
    };
    let (mut fits, mut best) = (0, first(0)?);
    let mut too_many = all.len();
    while too_many - fits > 1 {
        let count = fits.midpoint(too_many);
        match first(count) {
            Some(bytes) => (fits, best) = (count, bytes),
            None => too_many = count,
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use std::{panic::AssertUnwindSafe, time::Duration};

    use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
    use serde_json::json;

    use super::*;

    fn zone() -> Zone {
        let service = |name: &str, spec| json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec});
        let services = [
            service("web", json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]})),
            service("many", json!({"clusterIP": "None"})),
            service("out", json!({"type": "ExternalName", "externalName": "example.com"})),
        ];
        let services: Vec<Service> =
            services.into_iter().map(|s| serde_json::from_value(s).expect("service")).collect();
        let endpoints: Vec<_> = (1..200).map(|n| json!({"addresses": [format!("10.1.0.{n}")]})).collect();
        let meta = json!({"name": "m", "namespace": "n", "labels": {"kubernetes.io/service-name": "many"}});
        let slice = json!({"metadata": meta, "addressType": "IPv4", "endpoints": endpoints});
        let slice: EndpointSlice = serde_json::from_value(slice).expect("slice");
        Zone::of(services.iter(), [slice].iter())
    }

    fn ask(name: &str, kind: RecordType) -> Option<Message> {
        ask_over(name, kind, Over::Udp, SHORTEST)
    }

    /// Asks, with room for `longest` bytes in the answer.
    fn ask_over(name: &str, kind: RecordType, over: Over, longest: u16) -> Option<Message> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_str(name).expect("name"), kind));
        if longest > SHORTEST {
            let mut edns = Edns::new();
            edns.set_max_payload(longest);
            message.set_edns(edns);
        }
        let question = message.to_vec().expect("bytes");
        match answer(&question, &zone(), over) {
            Reply::Known(bytes) => {
                assert!(over == Over::Tcp || bytes.len() <= usize::from(longest.min(LONGEST)));
                let reply = Message::from_vec(&bytes).expect("an answer");
                assert_eq!((reply.metadata.id, &reply.queries), (message.metadata.id, &message.queries));
                Some(reply)
            }
            Reply::Ask => None,
            Reply::Nothing => panic!("{name} is a question"),
        }
    }

    #[test]
    fn questions_get_their_answers() {
        for (name, kind, want) in [
            ("web.n.svc.cluster.local.", RecordType::A, "10.96.0.7"),
            ("WEB.n.svc.Cluster.local.", RecordType::A, "10.96.0.7"),
            ("_http._tcp.web.n.svc.cluster.local.", RecordType::SRV, "0 100 80 web.n.svc.cluster.local."),
            ("7.0.96.10.in-addr.arpa.", RecordType::PTR, "web.n.svc.cluster.local."),
            ("out.n.svc.cluster.local.", RecordType::A, "example.com."),
            ("10-1-0-9.n.pod.cluster.local.", RecordType::A, "10.1.0.9"),
            ("fd00--1.n.pod.cluster.local.", RecordType::AAAA, "fd00::1"),
        ] {
            let reply = ask(name, kind).expect("known");
            let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
            assert_eq!(data, [want], "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_to_be_asked_again() {
        let many = "many.n.svc.cluster.local.";
        for (over, longest, least, most) in [
            (Over::Udp, SHORTEST, 20, 30),
            (Over::Udp, 4096, 45, 80),
            (Over::Tcp, SHORTEST, 199, 199),
            (Over::Tcp, 4096, 199, 199),
        ] {
            let reply = ask_over(many, RecordType::A, over, longest).expect("known");
            let (count, edns) = (reply.answers.len(), longest > SHORTEST);
            assert!((least..=most).contains(&count), "{over:?} {longest}: {count}");
            assert_eq!((reply.metadata.truncation, reply.edns.is_some()), (over == Over::Udp, edns), "{over:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_has_no_such_record() {
        for (name, kind, want) in [
            ("web.n.svc.cluster.local.", RecordType::AAAA, Some(ResponseCode::NoError)),
            ("n.svc.cluster.local.", RecordType::A, Some(ResponseCode::NoError)),
            ("absent.n.svc.cluster.local.", RecordType::A, Some(ResponseCode::NXDomain)),
            ("10-1-0-9.n.pod.cluster.local.", RecordType::AAAA, Some(ResponseCode::NoError)),
            ("10-1-0.n.pod.cluster.local.", RecordType::A, Some(ResponseCode::NXDomain)),
            ("n.pod.cluster.local.", RecordType::A, Some(ResponseCode::NoError)),
            ("example.com.svc.cluster.local.", RecordType::A, Some(ResponseCode::NXDomain)),
            ("example.com.", RecordType::A, None),
            ("1.2.3.4.in-addr.arpa.", RecordType::PTR, None),
        ] {
            let reply = ask(name, kind);
            assert_eq!(reply.as_ref().map(|reply| reply.metadata.response_code), want, "{name}");
            assert!(reply.is_none_or(|reply| reply.answers.is_empty()), "{name}");
        }
    }

    #[test]
    fn what_is_no_question_is_left_alone() {
        let answered = Message::response(1, OpCode::Query).to_vec().expect("bytes");
        let empty = Message::query().to_vec().expect("bytes");
        for bytes in [&b""[..], b"x", &[0xff; 600], &answered, &empty] {
            assert_eq!(answer(bytes, &zone(), Over::Udp), Reply::Nothing, "{bytes:?}");
        }
    }

    /// Pods send what they like. `cargo bolero test` runs this under a coverage-guided engine.
    #[test]
    fn any_bytes_get_an_answer_that_fits_or_none() {
        let zone = AssertUnwindSafe(zone());
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_str("many.n.svc.cluster.local.").expect("name"), RecordType::A));
        message.set_edns(Edns::new());
        let question = message.to_vec().expect("bytes");
        let input = bolero::generator::produce::<(Vec<(u8, u8)>, Vec<u8>)>();
        bolero::check!().with_test_time(Duration::from_secs(2)).with_generator(input).for_each(|(edits, noise)| {
            let zone = &*zone;
            let mut edited = question.clone();
            for (at, value) in edits {
                let place = usize::from(*at) % question.len();
                edited[place] = *value;
            }
            for (bytes, over, longest) in [(&edited, Over::Udp, LONGEST), (noise, Over::Tcp, u16::MAX)] {
                if let Reply::Known(reply) = answer(bytes, zone, over) {
                    assert!(reply.len() <= longest.into());
                    Message::from_vec(&reply).expect("an answer");
                }
            }
        });
    }
}
