use serde_json::Value;

use super::*;

fn data() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/openchange/memcached_selection.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> impl Iterator<Item = u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap())
}

fn keys(data: &Value) -> Vec<&str> {
    data["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect()
}

/// What a program can set besides the string, and a string can not.
fn behave(config: &mut Config, behavior: &str) {
    match behavior {
        "KETAMA_WEIGHTED=1" => {
            config.hash = KeyHash::Md5;
            config.distribution = Distribution::Consistent(Ring::Weighted);
        }
        "DISTRIBUTION=2" => config.distribution = Distribution::Consistent(Ring::Even(config.hash)),
        other => panic!("{other}"),
    }
}

#[test]
fn every_hash_is_libmemcacheds() {
    let data = data();
    let keys = keys(&data);
    let mut values = 0;
    for (name, expected) in data["hash_values"].as_object().unwrap() {
        let named = KeyHash::NAMED.iter().find(|(known, _)| known == name).map(|(_, hash)| *hash);
        let hash = match (named, name.as_str()) {
            (Some(hash), _) => hash,
            (None, "DEFAULT") => KeyHash::OneAtATime,
            // Refused by the library.
            (None, "HSIEH") => continue,
            other => panic!("{other:?}"),
        };
        for (key, expected) in keys.iter().zip(numbers(expected)) {
            assert_eq!(u64::from(hash.value(key.as_bytes())), expected, "{name} of {key}");
            values += 1;
        }
    }
    assert_eq!(values, 900);
}

#[test]
fn every_choice_is_libmemcacheds() {
    let data = data();
    let keys = keys(&data);
    let (mut cases, mut choices) = (0, 0);
    for case in data["cases"].as_array().unwrap() {
        let mut config = Config::parse(case["config"].as_str().unwrap()).unwrap();
        for behavior in case["behaviors"].as_array().unwrap() {
            behave(&mut config, behavior.as_str().unwrap());
        }
        let ports: Vec<u64> = config.servers.iter().map(|server| server.name_and_port().1.into()).collect();
        assert_eq!(ports, numbers(&case["servers"]).collect::<Vec<_>>(), "{case}");
        let selection = Selection::new(&config).unwrap();
        let expected = numbers(&case["generate_hash_index"]).zip(numbers(&case["server_by_key_port"]));
        for (key, (index, port)) in keys.iter().zip(expected) {
            let key = key.as_bytes();
            assert_eq!(
                u64::try_from(selection.index(key)).unwrap(),
                index,
                "{} in {}",
                key.escape_ascii(),
                case["config"]
            );
            assert_eq!(u64::from(selection.server(key).name_and_port().1), port);
            choices += 1;
        }
        cases += 1;
    }
    assert_eq!((cases, choices), (54, 5_400));
}

fn selection(config: &str) -> Selection {
    Selection::new(&Config::parse(config).unwrap()).unwrap()
}

#[test]
fn the_router_leaves_out_the_namespace() {
    let three = "--SERVER=aaa --SERVER=bbb --SERVER=ccc";
    let plain = selection(three);
    let named = selection(&format!("{three} --NAMESPACE=name"));
    let hashed = selection(&format!("{three} --NAMESPACE=name --HASH-WITH-NAMESPACE"));
    for number in 0..100 {
        let (key, stored) = (format!("key:{number}"), format!("namekey:{number}"));
        assert_eq!(named.index(key.as_bytes()), plain.index(key.as_bytes()));
        assert_eq!(hashed.index(key.as_bytes()), plain.index(stored.as_bytes()));
        for selection in [&named, &hashed] {
            assert_eq!(selection.route(stored.as_bytes(), &[]), selection.index(key.as_bytes()));
        }
    }
    // 250 octets are hashed, 251 are not.
    let long = "k".repeat(247);
    let (long, longer) = (&long.as_bytes()[..246], long.as_bytes());
    assert_eq!(hashed.value(long), KeyHash::OneAtATime.value(&[b"name", long].concat()));
    assert_eq!(hashed.value(longer), 0);
}

#[test]
fn a_random_choice_is_one_of_the_servers() {
    let selection = selection("--SERVER=aaa --SERVER=bbb --SERVER=ccc --DISTRIBUTION=RANDOM");
    let mut met = [0; 3];
    for _ in 0..1000 {
        met[selection.index(b"key")] += 1;
    }
    assert!(met.iter().all(|times| *times > 200), "{met:?}");
}

#[test]
fn a_failed_server_loses_its_keys_and_the_others_keep_theirs() {
    let config =
        Config::parse("--SERVER=aaa --SERVER=bbb --SERVER=ccc --DISTRIBUTION=CONSISTENT --HASH=MD5").unwrap();
    // By the hash of keys from the first failure on.
    let whole = Selection::without_failed(&config, |_| true).unwrap();
    let less = Selection::without_failed(&config, |index| index != 1).unwrap();
    let none = Selection::without_failed(&config, |_| false).unwrap();
    let (mut kept, mut moved) = (0, 0);
    for number in 0..1000 {
        let key = format!("key:{number}");
        let key = key.as_bytes();
        match whole.index(key) {
            1 => moved += usize::from(less.index(key) != 1),
            index => kept += usize::from(less.index(key) == index),
        }
        assert_eq!(none.index(key), Selection::new(&config).unwrap().index(key));
    }
    assert!(kept + moved == 1000 && moved > 200, "{kept} {moved}");
}

#[test]
fn there_is_no_choice_without_servers() {
    let error = Selection::new(&Config::parse("RESET").unwrap()).unwrap_err();
    assert!(error.to_string().contains("expected --SERVER="), "{error}");
}
