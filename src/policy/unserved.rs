//! What to do about accounts that no daemon serves.

/// How the daemon of this machine is started again, whose unit is not known: another one may run there.
pub fn start_again(host: &str) -> String {
    format!(
        "on {host}: sudo systemctl start apipayd; why it stopped: journalctl -u apipayd. If another apipayd runs there, \
         start the unit that does not: systemctl list-units --all 'apipayd*' shows them. If that machine will not come \
         back, add its accounts to the configuration of an apipayd on another one"
    )
}

/// How these accounts are given up, if nobody is to serve them any more.
pub fn give_up(accounts: &[&str]) -> String {
    let (whose, name) = match accounts {
        [one] => (
            format!("If account {one} is not to be served any more"),
            *one,
        ),
        _ => (
            "Of each account that is not to be served any more".to_owned(),
            "ACCOUNT",
        ),
    };
    format!(
        "{whose}, take the payments back: select * from apipay.cancel_jobs(array(select id from apipay.overview where \
         account = '{name}' and state in ('queued', 'parked')), 'why'); and have the invoices left alone as well: \
         select apipay.park('{name}', 'why'); (what becomes of what ApiPay has accepted is then not seen)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_is_named_in_the_statements_and_of_several_each_is_to_be() {
        let one = give_up(&["clinic"]);
        assert!(one.starts_with("If account clinic is"), "{one}");
        for statement in [
            "account = 'clinic' and state in ('queued', 'parked')",
            "select apipay.park('clinic', 'why');",
        ] {
            assert!(one.contains(statement), "{one}");
        }
        assert!(give_up(&["clinic", "shop"]).contains("apipay.park('ACCOUNT', 'why');"));
    }
}
