//! What a pod sends to port 53. An answer is an answer to the question, and not longer than the client takes.
#![no_main]

use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use orlop_dns::{Carrier, Names, Resolution, resolve};
use orlop_plan::resource::name_table::{KubernetesName, NameInfo, NameTable};

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let many =
        || (0..=255).map(|last| [10, 0, 0, last].into()).chain([[0, 1, 2, 3, 4, 5, 6, 7].into()]).collect();
    let web = || KubernetesName { shortname: "web".into(), namespace: "shop".into() };
    let hosts = [
        ("web.shop.svc.cluster.local", Some(web())),
        ("api.example", None),
        ("*.example", None),
        ("*.b.example", None),
    ];
    let hosts = hosts.map(|(host, kubernetes)| (host.into(), NameInfo { ips: many(), kubernetes }));
    Names::new(Arc::new(NameTable { hosts: hosts.into() }), "shop", "cluster.local")
});

fuzz_target!(|bytes: &[u8]| {
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        let Resolution::Answer(answer) = resolve(&NAMES, bytes, carrier) else { continue };
        assert_eq!(answer.get(..2), bytes.get(..2), "the identification");
        let query = Message::from_vec(bytes).expect("an answered query can be read");
        let message = Message::from_vec(&answer).expect("an answer can be read");
        assert_eq!(message.metadata.message_type, MessageType::Response);
        assert_eq!(message.queries, query.queries);
        let room = query.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()).max(512));
        assert!(carrier == Carrier::Tcp || answer.len() <= room, "{} octets of {room}", answer.len());
    }
});
