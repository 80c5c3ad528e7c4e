//! What is wrong with an account, and what a human can do: the vendor's own remedies (API, section 2.12a),
//! in the one place from which alerts and the sentences of views take them.

use std::borrow::Cow;

use crate::domain::answer::NotSent;
use crate::domain::codes::caps;
use crate::domain::outage::Fault;
use crate::policy::quoted::NOT_IN_ITS_WORDS;
use crate::policy::verdict::Reason;

/// What is wrong, and what to do about it: two parts of sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What is wrong.
    pub what: &'static str,
    /// What a human can do.
    pub action: Cow<'static, str>,
    /// Whether that is done on the machine of the daemon whose request was answered so.
    pub is_of_machine: bool,
}

/// How a daemon reads an account's key again, as the rest of a sentence about the key.
pub const READ_KEY: &str = "have apipayd read it: sudo systemctl restart apipayd where systemd loads the key \
                            (LoadCredential), sudo systemctl reload apipayd where it is in an api_key_file";

/// Where `apipayd check` is known to name the cause.
pub const CHECK: &str = "run: apipayd check; it says what is wrong and the SQL that mends it";

/// Where it may find none.
pub const CHECK_FIRST: &str = "run: apipayd check; if it names no cause, look for warnings in the log of apipayd (journalctl -u \
                               apipayd) and restart it, which is safe at any time";

/// What ends a lock whose holder is not known.
pub const ANY_LOCK: &str = "end the transaction that keeps it locked: of a session (select pid, usename, \
                            application_name, xact_start from pg_stat_activity where xact_start < now() - interval '5 \
                            seconds' order by xact_start;) or a prepared one (select gid, owner, database, prepared from \
                            pg_prepared_xacts order by prepared;).";

/// What is to be done as `apipayd check` says it beside all that it has found: not to run it.
pub fn in_check(action: &str) -> String {
    let found = "see the other lines here: they say what is wrong, and the SQL that mends it";
    let may_be_found = CHECK_FIRST.replacen(
        "run: apipayd check; if it names no cause",
        "if no other line here names a cause",
        1,
    );
    let mut said = action.to_owned();
    for (step, instead) in [(CHECK, found), (CHECK_FIRST, may_be_found.as_str())] {
        for (step, instead) in [
            (step.to_owned(), instead.to_owned()),
            (capitalized(step), capitalized(instead)),
        ] {
            said = said.replace(&step, &instead);
        }
    }
    said
}

/// With which a sentence may begin.
pub fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// About an account that is parked for this reason.
pub fn of_park(reason: Reason) -> Remedy {
    let (what, action) = match reason {
        // A session that has expired is the cashier's to renew; a connection that is gone, the vendor's.
        Reason::SessionExpired => (
            "the Kaspi session is gone",
            "log the cashier in again in the ApiPay dashboard; if that does not help, contact ApiPay's support \
             to reconnect the Kaspi Business session",
        ),
        Reason::KeyRejected => (
            "the API key is not accepted",
            "check the key in the ApiPay dashboard, Settings, Connection; then put the valid one into the account's key \
             file and have apipayd read it, which probes at once: sudo systemctl restart apipayd where systemd loads the \
             key (LoadCredential), sudo systemctl reload apipayd where it is in an api_key_file",
        ),
        Reason::OrganizationNotReady => (
            "the organization is not set up or not verified",
            "contact ApiPay's support by WhatsApp, who connect the organization; if the business form is not \
             approved yet, complete it in the ApiPay dashboard",
        ),
        Reason::TariffInactive => ("the tariff is not paid", "pay it in the ApiPay dashboard"),
        Reason::InvoicesDisabled => (
            "ApiPay takes no invoices now",
            "wait, an apipayd that serves the account asks again by itself; if it lasts, contact ApiPay's support",
        ),
        Reason::RouteNotFound => (
            "its base_url does not lead to ApiPay's API (HTTP 404)",
            "correct base_url of the account in the configuration (as documented: https://api.apipay.kz/api/v1), see \
             what apipayd check says, then: sudo systemctl reload apipayd, which probes at once",
        ),
        Reason::AccessDenied => ("ApiPay denies access", "ask ApiPay's support why"),
        _ => (
            "ApiPay is out of service (HTTP 503)",
            "wait, an apipayd that serves the account asks again by itself; if it lasts, contact ApiPay's support, who also \
             reconnect a Kaspi Business session; where the words are not ApiPay's, look at the proxy that base_url \
             leads through",
        ),
    };
    Remedy {
        what,
        action: action.into(),
        // Another machine may have another base_url, and another key.
        is_of_machine: matches!(reason, Reason::RouteNotFound | Reason::KeyRejected),
    }
}

/// About an account that has reached the cap with this code (API, section 4.3).
pub fn of_cap(account: &str, code: &str) -> Remedy {
    let (what, action): (_, Cow<'static, str>) = match code {
        "kyc_daily_limit_reached" | "kyc_limit_reached" => (
            "real invoices are limited until its business form is approved",
            "complete the business form in the ApiPay dashboard; waiting alone may never end it".into(),
        ),
        "tariff_limit_reached" => (
            "its tariff's limit of invoices is used up",
            "change the tariff in the ApiPay dashboard, or wait until ApiPay resets the limit".into(),
        ),
        "trial_daily_limit" => (
            "the trial's invoices of this day are used up",
            "pay for a tariff in the ApiPay dashboard, or wait for the next day".into(),
        ),
        "outstanding_org_limit" => (
            "too many of its invoices are unpaid",
            format!(
                "cancel the invoices that nobody will pay, select apipay.cancel_invoice(INVOICE_ID, account => '{account}'); or \
                 wait until some are paid or expire"
            )
            .into(),
        ),
        "recipient_fanout_exceeded" => (
            "it bills too many recipients in a short time",
            "nothing at first: the daemon waits as long as ApiPay asks; if all whom it bills are your customers, ask ApiPay's \
             support for a higher limit".into(),
        ),
        _ => (
            "ApiPay limits its invoices",
            "see in the ApiPay dashboard what the limit is, or ask ApiPay's support".into(),
        ),
    };
    Remedy {
        what,
        action,
        is_of_machine: false,
    }
}

/// About an account whose requests are all refused for a limit (429), with the last one's code and words (API, section
/// 4.3).
pub fn of_limit(account: &str, code: &str, said: Option<&str>) -> Remedy {
    if caps().iter().any(|cap| cap == code) {
        return of_cap(account, code);
    }
    let said = said.unwrap_or_default().to_lowercase();
    // No document has the code of this one.
    let is_of_wrong_keys = [code, &said].iter().any(|text| {
        ["authenticat", "неудачн", "failed attempt"]
            .iter()
            .any(|part| text.contains(part))
    });
    let (what, action): (_, Cow<'static, str>) = if is_of_wrong_keys {
        (
            "requests with a wrong key came too often",
            format!(
                "find out who sends a wrong API key: see the alerts and apipayd check for an account whose key is refused \
                 (401), and look for other programs on this machine or behind the same address; compare the key of account \
                 {account} with the ApiPay dashboard, Settings, Connection. To raise a limit does not help"
            )
            .into(),
        )
    } else if said.starts_with(&NOT_IN_ITS_WORDS.to_lowercase()) {
        (
            "something on the way limits them",
            "a proxy, a firewall or a CDN on the way refuses the requests: ask whoever runs it to let them through".into(),
        )
    } else {
        (
            "the limit of its key is reached",
            format!(
                "see whether another program uses the same API key, and whether accounts.{account}.requests_per_minute is \
                 more than ApiPay allows this key; if neither, ask ApiPay's support for its limit, and to raise it"
            )
            .into(),
        )
    };
    Remedy {
        what,
        action,
        is_of_machine: false,
    }
}

/// About an account whose requests get this in place of a clear answer.
pub fn of_fault(fault: &Fault) -> Remedy {
    let (what, action) = match fault.status {
        None if fault.code == NotSent::LookUpsHang.code() => (
            "cannot be reached, because look-ups of its name hang",
            "see that its nameservers answer, then: sudo systemctl restart apipayd, for it begins no more \
             look-ups before",
        ),
        None if fault.is_of_the_network() => (
            "cannot be reached",
            "see what apipayd check says, then look at the network, DNS, clock and certificates (TLS), and \
             at base_url",
        ),
        None => (
            "gives no answer",
            "see what apipayd check says, and look at the network; if ApiPay is reached and stays \
             silent, contact its support",
        ),
        Some(_) if fault.code == Reason::Busy.code() => (
            "says that Kaspi is busy",
            "nothing at first: the daemon tries again; if it persists, contact ApiPay's support",
        ),
        // Of one operation or job, while others of the account are taken.
        Some(_) if let Some(reason) = unwell(&fault.code) => {
            return Remedy {
                what: "answers as if the account were unwell",
                ..of_park(reason)
            };
        }
        Some(500..) => (
            "fails",
            "nothing at first: after a short delay the daemon tries again; if it persists, contact ApiPay's \
             support",
        ),
        // What `explain` says as well (the view `apipay._job_facts`).
        Some(403) if is_in_its_words(fault) => {
            return Remedy {
                what: "denies the account's key an answer",
                ..of_park(Reason::AccessDenied)
            };
        }
        // A 404 in its words may be about the path.
        Some(status @ 400..) if status != 404 && is_in_its_words(fault) => {
            return Remedy {
                what: "gives answers that are in no document",
                action: "see what its words say is wrong, and ask ApiPay's support what they mean and what ends it".into(),
                is_of_machine: false,
            };
        }
        Some(_) => (
            "gives answers that are in no document",
            "see what apipayd check says, and whether base_url leads to ApiPay and to no proxy before it; \
             if it persists, contact ApiPay's support",
        ),
    };
    Remedy {
        what,
        action: action.into(),
        is_of_machine: fault.code != Reason::Busy.code()
            && fault.status.is_none_or(|status| status < 500),
    }
}

/// Whether the gateway itself said what is wrong, and not a page on the way to it.
fn is_in_its_words(fault: &Fault) -> bool {
    let said = fault.said.as_deref();
    said.is_some_and(|said| !said.starts_with(NOT_IN_ITS_WORDS))
}

/// The reason with this code, if it says what is wrong with an account, and not merely that something is.
pub fn unwell(code: &str) -> Option<Reason> {
    let unwell = [
        Reason::SessionExpired,
        Reason::KeyRejected,
        Reason::OrganizationNotReady,
        Reason::TariffInactive,
        Reason::InvoicesDisabled,
        Reason::RouteNotFound,
        Reason::AccessDenied,
    ];
    unwell.into_iter().find(|reason| reason.code() == code)
}

/// About a job that the gateway refuses with this code again and again, for a reason of the job's own. Nothing of it
/// was done.
pub fn of_refusal(account: &str, code: &str) -> Remedy {
    let (what, action): (_, Cow<'static, str>) = match code {
        "outstanding_recipient_limit" => (
            "its customer has too many unpaid bills",
            format!(
                "see which unpaid bills the customer is not to pay any more, and cancel them: select \
                 apipay.cancel_invoice(INVOICE_ID, account => '{account}'); or ask the customer to pay"
            )
            .into(),
        ),
        _ => (
            "it is not taken now",
            "see in the ApiPay dashboard what stands in its way, or ask ApiPay's support".into(),
        ),
    };
    Remedy {
        what,
        action,
        is_of_machine: false,
    }
}

/// Whether a reason says more than that something is wrong: it takes the place of one that does not.
pub fn is_specific(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::ServiceUnavailable | Reason::AccessDenied | Reason::InvoicesDisabled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "shop";

    #[test]
    fn every_cap_has_a_remedy_of_its_own() {
        for code in caps() {
            assert_ne!(of_cap(ACCOUNT, &code), of_cap(ACCOUNT, "another"), "{code}");
        }
        assert_ne!(
            of_cap(ACCOUNT, "outstanding_org_limit"),
            of_cap(ACCOUNT, "kyc_daily_limit_reached")
        );
    }

    #[test]
    fn what_one_machine_has_wrong_is_mended_there() {
        for reason in Reason::ALL.iter().copied() {
            let is_of_machine = matches!(reason, Reason::KeyRejected | Reason::RouteNotFound);
            assert_eq!(of_park(reason).is_of_machine, is_of_machine, "{reason:?}");
        }
    }

    #[test]
    fn what_one_operation_is_refused_for_has_the_remedy_of_a_park() {
        let remedy = |code: &str, status| {
            of_fault(&Fault {
                code: code.to_owned(),
                status: Some(status),
                said: None,
            })
        };
        for reason in Reason::ALL.iter().copied() {
            let expected = unwell(reason.code()).map(|_| of_park(reason).action);
            let told = remedy(reason.code(), 403);
            assert_eq!(
                Some(told.action) == expected,
                expected.is_some(),
                "{reason:?}"
            );
        }
        assert_eq!(remedy("service_unavailable", 503).what, "fails");
    }

    #[test]
    fn an_answer_in_apipays_own_words_is_not_laid_to_a_proxy() {
        let of_words = |said: Option<&str>| {
            of_fault(&Fault {
                code: "unlisted_answer".to_owned(),
                status: Some(409),
                said: said.map(str::to_owned),
            })
        };
        let own = of_words(Some("Заказ уже обрабатывается"));
        assert!(
            !own.action.contains("proxy") && !own.is_of_machine,
            "{own:?}"
        );
        assert!(own.action.contains("its words"), "{own:?}");
        for said in [None, Some("not in ApiPay's words: conflict")] {
            let page = of_words(said);
            assert!(
                page.action.contains("proxy") && page.is_of_machine,
                "{page:?}"
            );
        }
    }

    /// `explain` says the same (the view `apipay._job_facts`).
    #[test]
    fn a_403_in_apipays_own_words_denies_the_key_an_answer() {
        let of_words = |said: Option<&str>| {
            of_fault(&Fault {
                code: "unlisted_answer".to_owned(),
                status: Some(403),
                said: said.map(str::to_owned),
            })
        };
        let own = of_words(Some("Доступ не выдан"));
        assert_eq!(own.what, "denies the account's key an answer");
        assert_eq!(own.action, "ask ApiPay's support why");
        let page = of_words(Some("not in ApiPay's words: <html>"));
        assert!(page.action.contains("proxy"), "{page:?}");
    }

    /// An action is read by itself, in a pager: what it speaks of has a name in it.
    #[test]
    fn an_action_speaks_of_nothing_that_only_its_summary_names() {
        let remedies = [
            of_refusal(ACCOUNT, "outstanding_recipient_limit"),
            of_cap(ACCOUNT, "outstanding_org_limit"),
            of_cap(ACCOUNT, "recipient_fanout_exceeded"),
        ];
        let pronouns = ["which of them", "cancel those", "these are"];
        for Remedy { action, .. } in remedies {
            let unnamed = pronouns.iter().find(|words| action.contains(**words));
            assert_eq!(unnamed, None, "{action}");
        }
    }

    #[test]
    fn only_look_ups_that_hang_need_a_restart() {
        let of_code = |cause: NotSent| {
            of_fault(&Fault {
                code: cause.code().to_owned(),
                status: None,
                said: None,
            })
        };
        let hang = of_code(NotSent::LookUpsHang);
        assert!(
            hang.action.contains("systemctl restart apipayd"),
            "{hang:?}"
        );
        for cause in NotSent::ALL {
            let needs_restart = of_code(cause).action.contains("restart");
            assert_eq!(needs_restart, cause == NotSent::LookUpsHang, "{cause:?}");
        }
    }

    #[test]
    fn each_429_has_the_remedy_of_its_code() {
        let rate = of_limit(ACCOUNT, "request_rate_limited", Some("Too Many Attempts."));
        assert!(rate.action.contains("to raise it"), "{rate:?}");
        assert_eq!(of_limit(ACCOUNT, "", None), rate);
        for (code, said) in [
            ("too_many_failed_authentications", None),
            ("too_many_requests", Some("Слишком много неудачных попыток")),
        ] {
            let keys = of_limit(ACCOUNT, code, said);
            assert!(
                keys.action.contains("who sends a wrong API key"),
                "{keys:?}"
            );
            assert!(!keys.action.contains("support"), "{keys:?}");
        }
        let page = of_limit(
            ACCOUNT,
            "too_many_requests",
            Some("not in ApiPay's words: 429"),
        );
        assert!(
            page.action.contains("proxy") && !page.action.contains("support"),
            "{page:?}"
        );
        for cap in caps() {
            assert_eq!(of_limit(ACCOUNT, &cap, None), of_cap(ACCOUNT, &cap));
        }
    }
}
