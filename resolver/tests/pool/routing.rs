//! The memcache crate's own clients with our choice of server: what they store, our resolvers find, and each key is
//! on the server that libmemcached would choose.

use memcache::exp::{AsyncMetaClient, MetaClient};
use ocbus_wire::openchange::ResolverRecord;

use super::*;

fn keys() -> Vec<String> {
    let text = include_str!("../../../tests/data/openchange/memcached_selection.json");
    let data: serde_json::Value = serde_json::from_str(text).unwrap();
    data["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_crates_router_and_our_stores_choose_alike() {
    let servers: Vec<Memcached> = (0..5).map(|_| Memcached::start()).collect();
    let addresses: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let named = addresses.iter().map(|address| format!("--SERVER={address}")).collect::<Vec<_>>().join(" ");
    let keys = keys();
    assert_eq!(keys.len(), 100);
    for (options, namespace) in [
        ("", ""),
        (" --HASH=MD5 --DISTRIBUTION=CONSISTENT", ""),
        (" --NAMESPACE=\"site.\"", "site."),
        (" --NAMESPACE=\"site.\" --HASH-WITH-NAMESPACE", "site."),
    ] {
        let config: Config = format!("{named}{options}").parse().unwrap();
        let selection = Selection::new(&config).unwrap();
        let builder = || MetaClient::builder().router(selection.clone());
        let blocking_client = builder().connect_multiple(&addresses).unwrap();
        let client: AsyncMetaClient = builder().connect_multiple_async(&addresses).await.unwrap();
        let (mut plugin, resolver) = (blocking(&config), connect(&config, 5 * SECOND).await);
        let mut used = [0; 5];
        for (number, key) in keys.iter().enumerate() {
            let hosts = vec![format!("tcp://h:{number}")];
            let value = ResolverRecord { hosts: hosts.clone() }.encode(DosCharset::default()).unwrap();
            let stored = format!("{namespace}{key}");
            match number % 2 {
                0 => drop(blocking_client.set(&stored, &value).send().unwrap()),
                _ => drop(client.set(&stored, &value).send().await.unwrap()),
            }
            let place = selection.index(key.as_bytes());
            used[place] += 1;
            for (index, server) in servers.iter().enumerate() {
                assert_eq!(server.get(&stored).is_some(), index == place, "{stored} at {index}{options}");
            }
            if let Some(name) = key.strip_prefix("resolver:") {
                assert_eq!(lookup(&mut plugin, &cn(name)).legacy, hosts);
                assert_eq!(resolver.lookup(&cn(name)).await.unwrap().legacy, hosts);
            }
            servers[place].ask(&format!("delete {stored}"), "DELETED");
        }
        assert!(used.iter().all(|used| *used > 0), "{used:?}");
    }
}
