//! The stand-in for the gateway, and what really happened there.

use apipay_sandbox::{Running, Settings};
use serde_json::{Value, json};

use super::http;

pub(crate) struct Sandbox {
    pub(crate) running: Running,
}

impl Sandbox {
    pub(crate) async fn start(settings: Settings) -> Sandbox {
        let running = apipay_sandbox::start("127.0.0.1:0".parse().unwrap(), settings)
            .await
            .unwrap();
        Sandbox { running }
    }

    /// A call of the control API that must succeed.
    pub(crate) async fn control(&self, call: &str, body: Value) -> Value {
        let (method, path) = call.split_once(' ').unwrap();
        let whole = format!("{method} /_sandbox{path}");
        let (status, answer) = http::call(self.running.addr, &whole, "", &body).await;
        assert_eq!(status, 200, "{call}: {answer}");
        answer
    }

    pub(crate) async fn fault(&self, rule: Value) {
        self.control("POST /faults", rule).await;
    }

    pub(crate) async fn organization(&self, settings: Value) {
        self.control("POST /organization", settings).await;
    }

    pub(crate) async fn session(&self, state: &str) {
        self.control("POST /session", json!({"state": state})).await;
    }

    /// The effects so far.
    pub(crate) async fn effects(&self) -> Vec<Value> {
        let ledger = self.control("GET /ledger", Value::Null).await;
        ledger["effects"].as_array().unwrap().clone()
    }

    pub(crate) async fn ledger(&self) -> Value {
        self.control("GET /ledger", Value::Null).await
    }

    /// The request log.
    pub(crate) async fn all_requests(&self) -> Vec<Value> {
        let log = self.control("GET /requests", Value::Null).await;
        log["requests"].as_array().unwrap().clone()
    }

    /// Requests about jobs and what they made: all but those that ask for an account's health, as each start does.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let mut requests = self.all_requests().await;
        requests.retain(|request| request["route"] != "GET /account/health");
        requests
    }

    /// Takes all faults away.
    pub(crate) async fn mend(&self) {
        self.control("DELETE /faults", Value::Null).await;
    }

    /// Requests of one route.
    pub(crate) async fn requests_to(&self, route: &str) -> Vec<Value> {
        let mut requests = self.all_requests().await;
        requests.retain(|request| request["route"] == route);
        requests
    }

    /// An invoice that no job made, as an operator would have made it by hand.
    pub(crate) async fn invoice(&self, key: &str, fields: Value) -> i64 {
        let mut invoice = json!({"organization": key, "phone": "87011112233", "amount": "1000.00"});
        for (field, value) in fields.as_object().unwrap() {
            invoice[field] = value.clone();
        }
        let made = self.control("POST /invoices", invoice).await;
        made["id"].as_i64().unwrap()
    }

    /// An invoice as the gateway shows it to a holder of the key.
    pub(crate) async fn show_invoice(&self, key: &str, id: i64) -> Value {
        let call = format!("GET /api/v1/invoices/{id}");
        let (status, invoice) = http::call(self.running.addr, &call, key, &Value::Null).await;
        assert_eq!(status, 200, "{invoice}");
        invoice
    }

    pub(crate) async fn set_invoice(&self, id: i64, fields: Value) {
        self.control(&format!("POST /invoices/{id}"), fields).await;
    }
}
