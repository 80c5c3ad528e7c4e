-- An account that is parked because what was accepted failed at Kaspi: one delivery ends it, and nothing older.

insert into apipay.accounts (name) values ('default'), ('other'), ('third');

create function pg_temp.park(accepted_at timestamptz) returns boolean language sql as $$
  select apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}', null, 'log in',
                      'kaspi_session_invalid', accepted_at);
$$;

do $$
declare
  sender apipay.accounts;
begin
  assert pg_temp.park(now() - interval '1 min');
  select * into sender from apipay.accounts where name = 'default';
  assert (sender.state, sender.delivery_error) = ('parked', 'kaspi_session_invalid');
  assert (select evidence ->> 'delivery_error' = 'kaspi_session_invalid' from apipay.events
           where subject = 'account' and to_state = 'parked');

  -- It is asked about, and nothing is sent but the probe.
  assert apipay._take_quota('default', 1, 'send', 100) = 0;
  assert apipay._take_quota('default', 1, 'check', 100) = 1 and apipay._take_quota('default', 1, 'lookup', 100) = 1
     and apipay._take_quota('default', 1, 'follow', 100) = 1 and apipay._take_quota('default', 1, 'probe', 100) = 1;

  -- What was accepted before the park proves nothing.
  update apipay.accounts set parked_at = now() - interval '30 s' where name = 'default';
  assert apipay._delivered('default', now() - interval '30 s', 'delivered') is null;
  assert apipay._delivered('other', now(), 'delivered') is null;
  assert (select state = 'parked' from apipay.accounts where name = 'default');
  assert apipay._delivered('default', now() - interval '29 s', 'delivered') = 0;
  select * into sender from apipay.accounts where name = 'default';
  assert sender.state = 'active' and num_nulls(sender.delivery_error, sender.trial_from, sender.probe_at) = 3;
  assert (select resolution = 'delivered' from apipay.alerts where kind = 'account_parked');

  -- What was accepted before it was resumed does not park it again; what was accepted since does.
  assert not pg_temp.park(now() - interval '1 s');
  assert pg_temp.park(now());

  -- An operator takes it over: then nothing is asked, and no delivery ends it.
  assert not apipay.park('default', 'closed');
  assert (select delivery_error is null from apipay.accounts where name = 'default');
  assert apipay._delivered('default', now() + interval '1 s', 'delivered') is null;
  assert apipay._take_quota('default', 1, 'check', 100) = 0;

  -- One that is parked for what the gateway said at once learns of it.
  assert apipay._park('other', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  assert apipay._take_quota('other', 1, 'check', 100) = 0;
  assert not apipay._learn_of_park('other', 'session_expired', 'session expired', 'log in', '{}', null, 'log in', null);
  assert apipay._learn_of_park('other', 'session_expired', 'invoices fail', 'log in', '{}', null, 'log in', 'kaspi_session_invalid');
  assert not apipay._learn_of_park('other', 'session_expired', 'invoices fail', 'log in', '{}', null, 'log in', 'kaspi_session_invalid');
  assert (select summary = 'invoices fail' from apipay.alerts where account = 'other' and resolved_at is null);

  -- What was said of one reason is not quoted of another.
  perform apipay._park('third', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}', 'log in again', 'log in');
  assert apipay._learn_of_park('third', 'session_expired', 'invoices fail', 'log in', '{}', null, 'log in', 'kaspi_session_invalid');
  assert (select parked_message = 'log in again' from apipay.accounts where name = 'third');
  assert apipay._learn_of_park('third', 'key_rejected', 'key rejected', 'check the key', '{}', null, 'check the key', null);
  assert (select parked_reason = 'key_rejected' and parked_message is null from apipay.accounts where name = 'third');
  assert apipay._learn_of_park('third', 'tariff_inactive', 'not paid', 'pay', '{}', 'Pay first', 'pay', null);
  assert (select parked_message = 'Pay first' from apipay.accounts where name = 'third');
end $$;
