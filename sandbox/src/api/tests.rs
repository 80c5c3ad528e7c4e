//! The gateway without a network: requests and moments in, replies out.

mod cancel;
mod create;
mod refund;
mod show;

use serde_json::{Value, json};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::{Request, answer};
use crate::clock::Moment;
use crate::world::{CatalogItem, Mode, Status, Switches, World};

const ORDINARY: &str = "87011234567";

type Close = fn(&mut Switches);

struct Bench {
    world: World,
    now: OffsetDateTime,
    seq: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut Switches)) -> Self {
        let mut switches = Switches::new(Mode::Live, 0);
        change(&mut switches);
        Self {
            world: World::new(switches, false),
            now: datetime!(2026-09-06 10:00 UTC),
            seq: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            life: self.now,
            real: self.now,
        }
    }

    fn call(&mut self, call: &str, body: Value) -> (u16, Value) {
        self.call_as("key-of-the-shop", call, body)
    }

    fn call_as(&mut self, key: &str, call: &str, body: Value) -> (u16, Value) {
        let (method, target) = call.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.seq += 1;
        let request = Request {
            method: method.to_owned(),
            path: format!("/api/v1{path}"),
            query: query.to_owned(),
            key: Some(key.to_owned()),
            body: if body.is_null() {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            },
        };
        let moment = self.moment();
        let reply = answer(&mut self.world, &request, moment, self.seq);
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn get(&mut self, target: &str) -> Value {
        let (status, body) = self.call(&format!("GET {target}"), Value::Null);
        assert_eq!(status, 200, "{target}: {body}");
        body
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
    }

    fn create(&mut self, phone: &str) -> u64 {
        let (status, body) = self.call(
            "POST /invoices",
            json!({"phone_number": phone, "amount": 1000}),
        );
        assert_eq!(status, 201, "{body}");
        body["id"].as_u64().unwrap()
    }

    fn paid(&mut self) -> u64 {
        let id = self.create(ORDINARY);
        self.force(id, Status::Paid);
        id
    }

    fn force(&mut self, id: u64, status: Status) {
        self.world.force_invoice(id, status, None, self.now);
    }

    fn status_of(&mut self, id: u64) -> String {
        self.get(&format!("/invoices/{id}"))["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

fn valid(change: &[(&str, Value)]) -> Value {
    let mut body = json!({"phone_number": ORDINARY, "amount": 1000});
    for (name, value) in change {
        body[*name] = value.clone();
    }
    body
}

fn with_catalog() -> Bench {
    Bench::with(|switches| {
        let item = |id, price: &str| CatalogItem {
            id,
            name: format!("item {id}"),
            price: price.parse().unwrap(),
        };
        switches.catalog = vec![item(1, "500"), item(2, "333")];
    })
}
