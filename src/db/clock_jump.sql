-- Stores that the database's clock was set, carries along what was measured by it, and tells of it, in
-- one statement. Nothing happens when another daemon was faster.
--
-- $1 distance of the steady time before   $2 after   $3 seconds by which the clock was set forward (less
-- than 0: back)   $4 lease in seconds   $5 summary, $6 action and $7 details of the alert
-- $8 how long to wait for whoever has the distance locked
--
-- What was written since the jump cannot be told from what was written before it. Where that matters the
-- error goes to the safe side: no absence is proven earlier, no unproven request gets younger.
-- Whatever is locked or too much stays as it is, until it is brought back to its bound (db/bounds.rs).
with patience as materialized (
  select set_config('lock_timeout', $8, true)
),
corrected as (
  update apipay._control set steady_ahead_us = $2 from patience where steady_ahead_us = $1
  returning make_interval(secs => $3) as jump
),
leases as (
  update apipay.jobs j
     set leased_until = least(apipay._moved(j.leased_until, greatest(c.jump, '0')), now() + make_interval(secs => $4)),
         failing_since = apipay._carried_since(j.failing_since, c.jump),
         updated_at = apipay._carried_since(j.updated_at, c.jump)
    from corrected c
   where j.id = any (array(
           select id from apipay.jobs where state = 'sending' limit 20000 for no key update skip locked))
),
waits as (
  update apipay.jobs j
     set run_at = apipay._carried_until(j.run_at, c.jump),
         unproven_since = apipay._carried_since(j.unproven_since, c.jump),
         -- What somebody said needs no clock.
         absent_since = case when j.absent_since = apipay._denied() then j.absent_since
                             else apipay._carried_since(j.absent_since, greatest(c.jump, '0')) end,
         failing_since = apipay._carried_since(j.failing_since, c.jump),
         updated_at = apipay._carried_since(j.updated_at, c.jump),
         denied_at = apipay._carried_since(j.denied_at, c.jump),
         quiet_until = apipay._moved(j.quiet_until, c.jump)
    from corrected c
   where j.id = any (array(
             select id from apipay.jobs where state = 'uncertain' limit 20000 for no key update skip locked)
           || array(
             select id from apipay.jobs where state = 'queued' and reason is not null and apipay._is_in_turn(reason)
              order by run_at limit 20000 for no key update skip locked)
           || array(
             select id from apipay.jobs where state = 'parked' and unproven_since is not null
              limit 20000 for no key update skip locked)
           -- The last request of a job that a person decides about may still be at work.
           || array(
             select id from apipay.jobs where state = 'held' and quiet_until is not null
              limit 20000 for no key update skip locked))
),
accounts as (
  update apipay.accounts a
     set blocked_until = apipay._carried_until(a.blocked_until, c.jump),
         capped_until = apipay._carried_until(a.capped_until, c.jump),
         probe_at = apipay._carried_until(a.probe_at, c.jump),
         failing_trial_at = apipay._carried_until(a.failing_trial_at, c.jump),
         trial_from = apipay._carried_until(a.trial_from, c.jump),
         parked_at = apipay._carried_since(a.parked_at, c.jump),
         doubted_since = apipay._carried_since(a.doubted_since, c.jump),
         resumed_at = apipay._carried_since(a.resumed_at, c.jump),
         failing_since = apipay._carried_since(a.failing_since, c.jump),
         failed_at = apipay._carried_since(a.failed_at, c.jump),
         failing_ended_at = apipay._carried_since(a.failing_ended_at, c.jump),
         unanswered_since = apipay._carried_since(a.unanswered_since, c.jump),
         answered_at = apipay._carried_since(a.answered_at, c.jump),
         refused_since = apipay._carried_since(a.refused_since, c.jump)
    from corrected c
   where a.name = any (array(select name from apipay.accounts for no key update skip locked))
),
reads as (
  update apipay._reads r
     set failing_since = apipay._carried_since(r.failing_since, c.jump),
         failed_at = apipay._carried_since(r.failed_at, c.jump),
         refused_since = apipay._carried_since(r.refused_since, c.jump),
         trial_at = apipay._carried_until(r.trial_at, c.jump)
    from corrected c
   where (r.account, r.kind) in (select account, kind from apipay._reads for no key update skip locked)
),
followed_invoices as materialized (
  select i.* from apipay.accounts a cross join lateral (
    select ctid as place, account, id from apipay.invoices i
     where i.account = a.name and not i.settled
     order by i.next_check_at limit 20000 for no key update skip locked) i
   limit 20000
),
invoices as (
  -- How long a dead one has been dead says when a new one is made, and when it is watched no longer.
  update apipay.invoices m
     set created_at = apipay._carried_since(m.created_at, greatest(c.jump, '0')),
         changed_at = apipay._carried_since(m.changed_at, greatest(c.jump, '0')),
         next_check_at = apipay._carried_until(m.next_check_at, c.jump)
    from corrected c
   where m.ctid = any (array(select place from followed_invoices))
),
followed_refunds as materialized (
  select r.* from apipay.accounts a cross join lateral (
    select ctid as place, job_id from apipay.refunds r
     where r.account = a.name and not r.settled
     order by r.next_check_at limit 20000 for no key update skip locked) r
   limit 20000
),
refunds as (
  update apipay.refunds m
     set created_at = apipay._carried_since(m.created_at, greatest(c.jump, '0')),
         changed_at = apipay._carried_since(m.changed_at, greatest(c.jump, '0')),
         next_check_at = apipay._carried_until(m.next_check_at, c.jump)
    from corrected c
   where m.ctid = any (array(select place from followed_refunds))
),
accepted as (
  -- Since when: an alert tells when that is long.
  update apipay.jobs j
     set updated_at = apipay._carried_since(j.updated_at, c.jump)
    from corrected c
   where c.jump > '0' and j.id = any (array(
           select l.id from apipay.jobs l
            where l.state = 'accepted' and l.id = any (array(
                      select w.id from followed_invoices i
                      cross join lateral (
                        select id, account from apipay.jobs where invoice_id = i.id and state = (select 'accepted')
                        offset 0) w
                       where w.account = i.account
                       limit 20000)
                    || array(
                      select w.id from followed_refunds r
                      cross join lateral (select id, state from apipay.jobs where id = r.job_id offset 0) w
                       where w.state = 'accepted'
                       limit 20000))
              for no key update skip locked))
),
deliveries as (
  update apipay.alert_deliveries d
     set next_try_at = apipay._carried_until(d.next_try_at, c.jump)
    from corrected c
   where c.jump < '0' and d.id = any (array(
           select id from apipay.alert_deliveries where delivered_at is null for no key update skip locked))
),
alerts as (
  -- One that is open for this very cause tells of its last jump.
  update apipay.alerts l
     set opened_at = apipay._carried_since(l.opened_at, c.jump),
         summary = case when l.kind = 'clock_jumped' then $5 else l.summary end,
         action = case when l.kind = 'clock_jumped' then $6 else l.action end,
         details = case when l.kind = 'clock_jumped' then $7 else l.details end
    from corrected c
   where l.id = any (array(
           select id from apipay.alerts where resolved_at is null for no key update skip locked))
)
-- An open one is changed above: a second change by the same statement would be refused.
select coalesce((select l.id from apipay.alerts l where coalesce(l.account, '') = '' and l.kind = 'clock_jumped' and l.resolved_at is null),
                apipay._open_alert(null, 'clock_jumped', 'warning', $5, $6, $7)) as alert
  from corrected c cross join lateral (select apipay._carry_daemons(c.jump)) carried
