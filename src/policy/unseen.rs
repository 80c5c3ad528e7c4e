//! What is asked for before a bill is sent, in words for people: where it could not be seen.

use crate::domain::job::JobId;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub enum First<'a> {
    /// Invoices of jobs that the bill repeats (`apipay.retry`).
    OfOriginals(&'a [(JobId, i64)]),
    /// Earlier invoices of its own.
    Own(&'a [i64]),
    /// Whatever carries its name.
    Named,
    /// Whatever carries the name of a job that the bill repeats.
    NamedAsOriginal(JobId),
}

/// Invoices that are named: more than that nobody reads.
const NAMED: usize = 5;

/// That it could not be seen whether one of them lives, and why: the gateway left some out of a list that it showed, or
/// what came in place of it.
pub fn unseen(first: First<'_>, left_out: &[i64], instead: Option<&str>) -> String {
    let asked = match first {
        First::OfOriginals(invoices) => {
            let named = invoices.iter();
            let named = named.map(|(job, invoice)| format!("invoice {invoice} of job {job}"));
            format!("{} (which it repeats)", either(named))
        }
        First::Own(invoices) => {
            let named = invoices.iter().map(|invoice| format!("invoice {invoice}"));
            format!("{} (which it made before)", either(named))
        }
        First::Named => "an invoice with its name".to_owned(),
        First::NamedAsOriginal(job) => {
            format!("an invoice with the name of job {job} (which it repeats)")
        }
    };
    let why = match (left_out, instead) {
        ([], None) => String::new(),
        ([], Some(instead)) => format!(": {instead}"),
        (left_out, _) => {
            let named = left_out.iter().map(|invoice| format!("invoice {invoice}"));
            format!(": ApiPay left out {}", listed(named, "and"))
        }
    };
    format!("it could not be seen whether {asked} lives{why}")
}

fn either(named: impl ExactSizeIterator<Item = String>) -> String {
    listed(named, "or")
}

fn listed(named: impl ExactSizeIterator<Item = String>, last: &str) -> String {
    let rest = named.len().saturating_sub(NAMED);
    let rest = (rest > 0).then(|| format!("{rest} more"));
    let named: Vec<String> = named.take(NAMED).chain(rest).collect();
    named.join(&format!(" {last} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_was_asked_for_and_what_came_instead() {
        let of_originals = [(JobId(7), 31), (JobId(9), 32)];
        for (first, left_out, instead, expected) in [
            (
                First::OfOriginals(&of_originals[..1]),
                &[][..],
                Some("ApiPay said: Not found"),
                "it could not be seen whether invoice 31 of job 7 (which it repeats) lives: ApiPay said: Not found",
            ),
            (
                First::OfOriginals(&of_originals),
                &[32],
                Some("it is not read where some are left out"),
                "it could not be seen whether invoice 31 of job 7 or invoice 32 of job 9 (which it repeats) lives: ApiPay left \
                 out invoice 32",
            ),
            (
                First::Own(&[1, 2, 3, 4, 5, 6, 7]),
                &[1, 2],
                None,
                "it could not be seen whether invoice 1 or invoice 2 or invoice 3 or invoice 4 or invoice 5 or 2 more (which it \
                 made before) lives: ApiPay left out invoice 1 and invoice 2",
            ),
            (
                First::Named,
                &[],
                None,
                "it could not be seen whether an invoice with its name lives",
            ),
            (
                First::NamedAsOriginal(JobId(7)),
                &[],
                Some("HTTP 500"),
                "it could not be seen whether an invoice with the name of job 7 (which it repeats) lives: HTTP 500",
            ),
        ] {
            assert_eq!(unseen(first, left_out, instead), expected);
        }
    }
}
