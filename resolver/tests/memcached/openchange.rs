//! OpenChange's own records and calls, as the data has them.

use super::*;

fn vectors(kind: &str) -> Vec<serde_json::Value> {
    let text = include_str!("../../../tests/data/openchange/vectors.json");
    let all: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    all.into_iter().filter(|case| case["kind"] == kind).collect()
}

#[tokio::test]
async fn resolver_records_are_those_of_openchange_octet_for_octet() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let (mut written, mut refused_cn, mut refused_host) = (0, 0, 0);
    for case in vectors("resolver") {
        let name = case["name"].as_str().unwrap();
        memcached.ask("flush_all", "OK");
        let Ok(cn) = Cn::new(case["input"]["cn"].as_str().unwrap()) else {
            // Where only the cn is wrong: OpenChange refuses three of these itself, and sends the fourth.
            assert!(
                case["hex"].is_null() && !case["ret"][0].as_str().unwrap().starts_with("ret=0"),
                "{name}"
            );
            refused_cn += 1;
            continue;
        };
        let hosts: Vec<&str> =
            case["input"]["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap()).collect();
        let mut results = Vec::new();
        for host in &hosts {
            results.push(resolver.register_legacy(&cn, host).await);
        }
        assert_eq!(cn.resolver_key(), case["key"].as_str().unwrap(), "{name}");
        let Some(hex) = case["hex"].as_str() else {
            assert!(matches!(results[0], Err(ResolverError::Unwritable { .. })), "{name}: {results:?}");
            assert_eq!(memcached.get(&cn.resolver_key()), None, "{name}");
            refused_host += 1;
            continue;
        };
        assert!(results.iter().all(|result| *result.as_ref().unwrap()), "{name}");
        let octets = memcached.get(&cn.resolver_key()).unwrap();
        assert_eq!(octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>(), hex, "{name}");
        // Flags 0, no expiry, as many octets.
        let meta = memcached.ask(&format!("mg {} t f s", cn.resolver_key()), "HD");
        assert_eq!(meta, case["memcached"]["meta"].as_str().unwrap(), "{name}");
        assert_eq!(lookup(&mut blocking(memcached.port), cn.as_str()).legacy, hosts, "{name}");
        written += 1;
    }
    assert_eq!((written, refused_cn, refused_host), (6, 4, 1));
}

/// What one of OpenChange's calls says here, in its words.
async fn call(memcached: &Memcached, resolver: &Resolver, call: &[&str]) -> String {
    let (Ok(cn), host) = (Cn::new(call[1]), call.get(2).copied().unwrap_or_default()) else {
        return "refused".to_owned();
    };
    let said = |done: bool, otherwise: &str| if done { "ret=0 (Success)" } else { otherwise }.to_owned();
    match call[0] {
        "resolver_add" => said(resolver.register_legacy(&cn, host).await.unwrap(), "ret=17 (Already Exists)"),
        "resolver_del" => said(resolver.leave_legacy(&cn, host).await.unwrap(), "ret=15 (Not Found)"),
        "resolver_exist" => said(memcached.get(&cn.resolver_key()).is_some(), "ret=15 (Not Found)"),
        "resolver_get" => match resolver.lookup(&cn).await.unwrap().legacy {
            hosts if hosts.is_empty() => "ret=15 (Not Found)".to_owned(),
            hosts => {
                let shown: Vec<String> = hosts.iter().map(|host| format!("[{host}]")).collect();
                format!("count={} {} ret=0 (Success)", hosts.len(), shown.join(" "))
            }
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn calls_on_resolver_records_end_as_in_openchange_where_it_was_right() {
    let memcached = Memcached::start();
    let resolver = connect(memcached.port, 5 * SECOND).await;
    let (mut same, mut other) = (0, 0);
    for case in vectors("api") {
        let name = case["name"].as_str().unwrap();
        let Some(calls) = case["input"].as_array() else { continue };
        memcached.ask("flush_all", "OK");
        let mut results = Vec::new();
        for one in calls {
            let one: Vec<&str> = one.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            if one.contains(&"NULL") {
                // A null pointer: no such thing here.
                continue;
            }
            results.push(call(&memcached, &resolver, &one).await);
        }
        let results: Vec<&str> = results.iter().map(String::as_str).collect();
        let (ok, absent) = ("ret=0 (Success)", "ret=15 (Not Found)");
        // Where the original compared by prefix, or let a command through.
        let better: &[&str] = match name {
            "api_prefix_add" => &[ok, ok, "count=2 [tcp://h:9005] [tcp://h:90] ret=0 (Success)"],
            "api_prefix_delete_wrong_host" | "api_empty_host_delete_matches_any" => &[ok, ok, absent],
            "api_empty_host_add" => &[ok, ok, "count=2 [tcp://h:9005] [] ret=0 (Success)"],
            "api_cn_crlf_injection" => &[ok, "refused", "refused", "count=1 [tcp://h:9005] ret=0 (Success)"],
            "api_cn_space" => &["refused"; 4],
            "api_null_args" => &[],
            _ => {
                let expected: Vec<&str> =
                    case["results"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                assert_eq!(results, expected, "{name}");
                same += 1;
                continue;
            }
        };
        assert_eq!(results[..better.len()], *better, "{name}");
        if name.contains("delete") {
            assert!(results[3].starts_with("count=2 "), "{name}: nothing is gone: {results:?}");
        }
        other += 1;
    }
    assert_eq!((same, other), (7, 7));
}
