-- What the check for progress needs the owner's rights for.
set search_path = pg_catalog, pg_temp;

create function apipay._announce(worker uuid, host text, version text, accounts text[], doubted text[] default '{}') returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  delete from apipay.daemons d
   where d.seen_at < now() - interval '1 day' and d.worker <> $1
     and (d.seen_at < now() - interval '30 days'
          -- The last one to serve an account tells where that account was served.
          or not exists (
            select from unnest(d.accounts) as served (account)
             where not exists (select from apipay.daemons l where l.seen_at > d.seen_at and (served.account = any (l.accounts) or l.dropped ? served.account))));
  insert into apipay.daemons (worker, host, version, accounts, doubted) values ($1, $2, $3, $4, $5)
  on conflict on constraint daemons_pkey do update
    set seen_at = now(), accounts = excluded.accounts, doubted = excluded.doubted, has_left = false,
        dropped = case when daemons.accounts = excluded.accounts then daemons.dropped else
          (daemons.dropped || coalesce((
             select jsonb_object_agg(gone.account, now())
               from (select unnest(daemons.accounts) except select unnest(excluded.accounts)) as gone (account)), '{}')) - excluded.accounts end;
$$;
comment on function apipay._announce(uuid, text, text, text[], text[]) is 'A daemon''s sign of life, with the accounts that it serves, and those whose key it doubts. Notes when it came to serve one no more. Forgets those that gave none for a day, and the last one to serve an account after thirty.';

-- Since when a daemon is not seen tells that it is gone.
create function apipay._carry_daemons(jump interval) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update apipay.daemons d
     -- Set back, one that has given a sign of life since must not seem older than it is.
     set seen_at = apipay._carried_since(d.seen_at, greatest(jump, '0'))
   where d.worker = any (array(select worker from apipay.daemons for no key update skip locked))
$$;
comment on function apipay._carry_daemons(interval) is 'Carries along when each daemon was last seen, after the clock was set forward by jump (back, if less than 0).';

create function apipay._leave(worker uuid) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update apipay.daemons d set has_left = true where d.worker = $1;
$$;
comment on function apipay._leave(uuid) is 'A daemon was stopped and has recorded all that it did: nothing of its accounts is under way there any more.';

-- A number that somebody inserted by hand may be one that the sequence never comes to. To carry on behind it would use up
-- the sequence, or give out numbers that programs which hold them as floating point round: 2^53 is where that begins.
create function apipay._highest_number() returns bigint
language sql immutable parallel safe
return 9007199254740991;
comment on function apipay._highest_number() is 'Up to which number a sequence is compared with its table: no sequence comes to a higher one.';

-- The ids of jobs stand in attempts too: a number that was used there cannot be claimed again.
create function apipay._sequences_behind() returns table (sequence text, highest bigint, beyond bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select s.sequence, s.highest, s.beyond
  from (
    select 'apipay.jobs_id_seq', last_value + is_called::int,
           greatest((select max(id) from apipay.jobs where id <= apipay._highest_number()),
                    (select max(job_id) from apipay.attempts where job_id <= apipay._highest_number())),
           (select max(id) from apipay.jobs where id > apipay._highest_number()) from apipay.jobs_id_seq
    union all
    select 'apipay.events_id_seq', last_value + is_called::int, (select max(id) from apipay.events where id <= apipay._highest_number()),
           (select max(id) from apipay.events where id > apipay._highest_number()) from apipay.events_id_seq
    union all
    select 'apipay.alerts_id_seq', last_value + is_called::int, (select max(id) from apipay.alerts where id <= apipay._highest_number()),
           (select max(id) from apipay.alerts where id > apipay._highest_number()) from apipay.alerts_id_seq
    union all
    select 'apipay.alert_deliveries_id_seq', last_value + is_called::int,
           (select max(id) from apipay.alert_deliveries where id <= apipay._highest_number()),
           (select max(id) from apipay.alert_deliveries where id > apipay._highest_number()) from apipay.alert_deliveries_id_seq
    union all
    select 'apipay.webhooks_id_seq', last_value + is_called::int, (select max(id) from apipay.webhooks where id <= apipay._highest_number()),
           (select max(id) from apipay.webhooks where id > apipay._highest_number()) from apipay.webhooks_id_seq
  ) as s (sequence, next, highest, beyond)
  where s.next <= s.highest;
$$;
comment on function apipay._sequences_behind() is
  'Sequences that will give out a number that is taken already, as after truncate ... restart identity or a logical copy, with the highest number that is taken and that they come to, and the highest of those that they never come to, if there are any.';
