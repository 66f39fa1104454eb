//! One question, one answer. Pods ask, and send what they like: whatever is no
//! question is left alone.

use std::str::FromStr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SRV},
    },
};

use super::zone::{DOMAIN, Entry, Zone};

/// Endpoints come and go: how long answers may be kept, in seconds.
const KEEP: u32 = 5;
/// The longest answer for whoever does not say more (RFC 1035), and the longest
/// that passes every network in one piece.
const SHORTEST: u16 = 512;
const LONGEST: u16 = 1232;

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
pub fn answer(question: &[u8], zone: &Zone) -> Reply {
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
        Some(entries) => drop(reply.add_answers(records(query, entries))),
    }
    let longest = if asked.edns.is_some() { asked.max_payload().clamp(SHORTEST, LONGEST) } else { SHORTEST };
    fit(reply, longest.into()).map_or(Reply::Nothing, Reply::Known)
}

fn records(query: &Query, entries: &[Entry]) -> Vec<Record> {
    let wanted = query.query_type();
    let data = |entry: &Entry| {
        Some(match (entry, wanted) {
            (Entry::Address(address), RecordType::A | RecordType::ANY) => RData::A(A(*address)),
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

/// As many answers as fit: any endpoint will do.
fn fit(mut reply: Message, longest: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = reply.to_vec().ok()?;
        if bytes.len() <= longest || reply.answers.pop().is_none() {
            return Some(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_str(name).expect("name"), kind));
        let question = message.to_vec().expect("bytes");
        match answer(&question, &zone()) {
            Reply::Known(bytes) => {
                assert!(bytes.len() <= usize::from(SHORTEST));
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
        ] {
            let reply = ask(name, kind).expect("known");
            let data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
            assert_eq!(data, [want], "{name}");
        }
        let many = ask("many.n.svc.cluster.local.", RecordType::A).expect("known");
        assert!(many.answers.len() > 20, "as many as fit: {}", many.answers.len());
    }

    #[test]
    fn what_is_not_there_is_told_from_what_has_no_such_record() {
        for (name, kind, want) in [
            ("web.n.svc.cluster.local.", RecordType::AAAA, Some(ResponseCode::NoError)),
            ("n.svc.cluster.local.", RecordType::A, Some(ResponseCode::NoError)),
            ("absent.n.svc.cluster.local.", RecordType::A, Some(ResponseCode::NXDomain)),
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
            assert_eq!(answer(bytes, &zone()), Reply::Nothing, "{bytes:?}");
        }
    }
}
