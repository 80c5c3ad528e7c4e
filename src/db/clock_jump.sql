-- Stores that the database's clock was set, carries along what was measured by it, and tells of it, in
-- one statement. Nothing happens when another daemon was faster.
--
-- $1 distance of the steady time before   $2 after   $3 seconds by which the clock was set forward (less
-- than 0: back)   $4 lease in seconds   $5 summary, $6 action and $7 details of the alert
--
-- What was written since the jump cannot be told from what was written before it. Where that matters the
-- error goes to the safe side: no absence is proven earlier, no unproven request gets younger.
-- Whatever is locked or too much stays as it is, until it is brought back to its bound (db/bounds.rs).
with corrected as (
  update apipay._control set steady_ahead_us = $2 where steady_ahead_us = $1
  returning make_interval(secs => $3) as jump
),
leases as (
  update apipay.jobs j
     set leased_until = least(j.leased_until + greatest(c.jump, '0'), now() + make_interval(secs => $4))
    from corrected c
   where j.id = any (array(
           select id from apipay.jobs where state = 'sending' limit 20000 for no key update skip locked))
),
waits as (
  update apipay.jobs j
     set run_at = case when c.jump < '0' then greatest(least(j.run_at, now()), j.run_at + c.jump)
                       when j.run_at between now() - c.jump and now() then j.run_at + c.jump
                       else j.run_at end,
         unproven_since = least(j.unproven_since + c.jump, now()),
         -- What somebody said needs no clock.
         absent_since = case when j.absent_since = apipay._denied() then j.absent_since
                             else least(j.absent_since + greatest(c.jump, '0'), now()) end,
         quiet_until = j.quiet_until + c.jump
    from corrected c
   where j.id = any (array(
             select id from apipay.jobs where state = 'uncertain' limit 20000 for no key update skip locked)
           || array(
             select id from apipay.jobs where state = 'queued' and reason is not null and apipay._is_in_turn(reason)
              order by run_at limit 20000 for no key update skip locked)
           || array(
             select id from apipay.jobs where state = 'parked' and unproven_since is not null
              limit 20000 for no key update skip locked))
),
accounts as (
  update apipay.accounts a
     set blocked_until = case when c.jump < '0' then greatest(least(a.blocked_until, now()), a.blocked_until + c.jump)
                              when a.blocked_until between now() - c.jump and now() then a.blocked_until + c.jump
                              else a.blocked_until end,
         capped_until = case when c.jump < '0' then greatest(least(a.capped_until, now()), a.capped_until + c.jump)
                             when a.capped_until between now() - c.jump and now() then a.capped_until + c.jump
                             else a.capped_until end,
         probe_at = case when c.jump < '0' then greatest(least(a.probe_at, now()), a.probe_at + c.jump) else a.probe_at end,
         resumed_at = least(a.resumed_at + c.jump, now())
    from corrected c
   where a.name = any (array(
           select name from apipay.accounts
            where blocked_until is not null or capped_until is not null or probe_at is not null or resumed_at is not null
              for no key update skip locked))
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
     set created_at = least(m.created_at + greatest(c.jump, '0'), now()),
         changed_at = least(m.changed_at + greatest(c.jump, '0'), now()),
         next_check_at = greatest(least(m.next_check_at, now()), m.next_check_at + least(c.jump, '0'))
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
     set created_at = least(m.created_at + greatest(c.jump, '0'), now()),
         changed_at = least(m.changed_at + greatest(c.jump, '0'), now()),
         next_check_at = greatest(least(m.next_check_at, now()), m.next_check_at + least(c.jump, '0'))
    from corrected c
   where m.ctid = any (array(select place from followed_refunds))
),
accepted as (
  -- Since when: an alert tells when that is long.
  update apipay.jobs j
     set updated_at = least(j.updated_at + c.jump, now())
    from corrected c
   where c.jump > '0' and j.id = any (array(
           select l.id from apipay.jobs l
            where l.state = 'accepted' and l.id = any (array(
                      select w.id from followed_invoices i
                      cross join lateral (
                        select id, account from apipay.jobs where invoice_id = i.id and state = 'accepted'
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
     set next_try_at = greatest(least(d.next_try_at, now()), d.next_try_at + c.jump)
    from corrected c
   where c.jump < '0' and d.id = any (array(
           select id from apipay.alert_deliveries where delivered_at is null for no key update skip locked))
),
alerts as (
  -- One that is open for this very cause tells of its last jump.
  update apipay.alerts l
     set opened_at = least(l.opened_at + c.jump, now()),
         summary = case when l.kind = 'clock_jumped' then $5 else l.summary end,
         action = case when l.kind = 'clock_jumped' then $6 else l.action end,
         details = case when l.kind = 'clock_jumped' then $7 else l.details end
    from corrected c
   where l.id = any (array(
           select id from apipay.alerts where resolved_at is null for no key update skip locked))
)
-- An open one is changed above: a second change by the same statement would be refused.
select coalesce((select l.id from apipay.alerts l where coalesce(l.account, '') = '' and l.kind = 'clock_jumped' and l.resolved_at is null),
                apipay._open_alert(null, 'clock_jumped', 'warning', $5, $6, $7)) as "alert!" from corrected
