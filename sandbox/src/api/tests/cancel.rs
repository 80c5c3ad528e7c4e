//! Cancels.

use super::*;

#[test]
fn live_cancels_come_to_many_ends() {
    for (phone, after_1_s, after_3_s, code) in [
        (ORDINARY, "cancelled", "cancelled", None),
        (
            "87000000020",
            "error",
            "error",
            Some("invoice_already_paid"),
        ),
        ("87000000021", "pending", "pending", None),
        ("87000000022", "pending", "paid", None),
        (
            "87000000023",
            "error",
            "error",
            Some("invoice_already_cancelled"),
        ),
        (
            "87000000024",
            "error",
            "error",
            Some("invoice_not_found_in_kaspi"),
        ),
        ("87000000025", "cancelling", "cancelling", None),
    ] {
        let mut bench = Bench::new();
        let id = bench.create(phone);
        bench.wait(Duration::SECOND);
        let (status, body) = bench.call(&format!("POST /invoices/{id}/cancel"), Value::Null);
        assert_eq!((status, &body["invoice_id"]), (202, &json!(id)));
        assert_eq!(bench.status_of(id), "cancelling");
        bench.wait(Duration::SECOND);
        assert_eq!(bench.status_of(id), after_1_s, "{phone}");
        bench.wait(Duration::seconds(2));
        assert_eq!(bench.status_of(id), after_3_s, "{phone}");
        assert_eq!(
            bench.get(&format!("/invoices/{id}"))["error_code"].as_str(),
            code
        );
    }
}

#[test]
fn only_open_invoices_are_cancelled() {
    for status in Status::ALL {
        let mut bench = Bench::with(|switches| switches.mode = Mode::Sandbox);
        let id = bench.create(ORDINARY);
        bench.force(id, status);
        let (got, body) = bench.call(&format!("POST /invoices/{id}/cancel"), Value::Null);
        if matches!(status, Status::Pending | Status::Processing) {
            assert_eq!(
                (got, &body["invoice"]["status"]),
                (200, &json!("cancelled"))
            );
            assert_eq!(bench.world.ledger.len(), 2);
        } else {
            assert_eq!(
                (got, &body["error"]),
                (400, &json!("Invoice cannot be cancelled")),
                "{status:?}"
            );
            assert_eq!(bench.world.ledger.len(), 1);
        }
    }
}

#[test]
fn an_invoice_that_never_reached_kaspi_is_cancelled_at_once() {
    let mut bench = Bench::new();
    let id = bench.create(ORDINARY);
    assert_eq!(
        bench
            .call(&format!("POST /invoices/{id}/cancel"), Value::Null)
            .0,
        200
    );
    bench.wait(Duration::days(2));
    assert_eq!(bench.status_of(id), "cancelled");
}
