//! Requests as memcached's meta commands, and its answers.

use memcache::exp::{
    DeleteOptions, Error, GetOptions, MetaCommand, MetaCommandResult, ReturnCode, SetMode, SetOptions,
    build_delete, build_get, build_set,
};

use super::expiry_s;
use crate::update::{Expect, Item, Request, Response};

pub(super) fn commands(request: &Request) -> Result<Vec<MetaCommand>, Error> {
    match request {
        Request::Get { keys, .. } => {
            let mut options = GetOptions::default();
            options.return_cas = true;
            keys.iter().map(|key| build_get(key, &options)).collect()
        }
        Request::Put { key, value, expiry, expect } => {
            let mut options = SetOptions::default();
            options.ttl = Some(expiry_s(*expiry));
            match expect {
                Expect::Any => {}
                Expect::Absent => options.mode = SetMode::Add,
                Expect::Cas(cas) => options.compare_cas = Some(*cas),
            }
            Ok(vec![build_set(key, value.as_slice(), &options)?])
        }
        Request::Delete { key, cas } => {
            let mut options = DeleteOptions::default();
            options.compare_cas = *cas;
            Ok(vec![build_delete(key, &options)?])
        }
        Request::Touch { key, expiry } => {
            let mut options = GetOptions::default();
            options.value = false;
            options.touch = Some(expiry_s(Some(*expiry)));
            Ok(vec![build_get(key, &options)?])
        }
    }
}

pub(super) fn response(request: &Request, results: Vec<MetaCommandResult>) -> Result<Response, Error> {
    if let Request::Get { .. } = request {
        return results.into_iter().map(item).collect::<Result<_, _>>().map(Response::Items);
    }
    match results.first().map(|result| result.rc) {
        Some(ReturnCode::Hd) => Ok(Response::Done),
        Some(ReturnCode::Ns | ReturnCode::Ex | ReturnCode::Nf | ReturnCode::En) => Ok(Response::NotDone),
        other => Err(Error::Protocol(format!("unexpected answer {other:?}"))),
    }
}

fn item(result: MetaCommandResult) -> Result<Option<Item>, Error> {
    match (result.rc, result.value, result.cas) {
        (ReturnCode::En, _, _) => Ok(None),
        (ReturnCode::Va, Some(value), Some(cas)) => Ok(Some(Item { value, cas })),
        (rc, ..) => Err(Error::Protocol(format!("unexpected answer {rc:?} to a look-up"))),
    }
}
