-- The quota: a sliding window of one-second counts, taken by the statement that claims the work.
--
-- A request may reach the gateway up to the send window (5 s) after its quota was taken, so the
-- window is 60 + 5 seconds and one more for the second that is under way: in no 60 seconds does the
-- gateway see more than the limit.
--
-- Its seconds are not the database's clock, which may be set back or forward at any time: the caller
-- gives the second, counted by a clock that cannot jump (apipay._clocks).
set search_path = pg_catalog, pg_temp;

create function apipay._quota_seconds() returns int language sql immutable parallel safe return 66;
comment on function apipay._quota_seconds() is 'Length of the quota''s window in seconds.';

create function apipay._quota_sum(used int[]) returns bigint
language sql immutable parallel safe
return (select coalesce(sum(n), 0) from unnest(used) as n);
comment on function apipay._quota_sum(int[]) is 'Requests in the window.';

-- Callers may come out of order by a little, and a newest second that is further ahead was counted by a
-- clock that has been put right: obeyed, it would lock the account out until then.
create function apipay._quota_newest(newest bigint, second bigint) returns bigint
language sql immutable parallel safe
return case when newest > second + 10 then second else greatest(newest, second) end;
comment on function apipay._quota_newest(bigint, bigint) is 'The newest second of the window, counted on to the given one.';

create function apipay._quota_slide(used int[], newest bigint, second bigint) returns int[]
language sql immutable parallel safe
return case
  when apipay._quota_newest(newest, second) < newest
    then array_fill(0, array[apipay._quota_seconds() - 1]) || least(apipay._quota_sum(used), 1000000000)::int
  else array(
    select coalesce(used[i + least(apipay._quota_newest(newest, second) - newest, apipay._quota_seconds())], 0)
    from generate_series(1, apipay._quota_seconds()) as i) end;
comment on function apipay._quota_slide(int[], bigint, bigint) is 'The window moved on to the given second. A window of the future counts as taken just now: no request of it is forgotten too early.';

-- Sends leave a sixth of the limit to look-ups and follow-ups, which settle what is already under way.
create function apipay._quota_reserve(per_minute int) returns int
language sql immutable parallel safe
return case when per_minute >= 2 then greatest(1, per_minute / 6) else 0 end;
comment on function apipay._quota_reserve(int) is 'Requests a minute that sends may not use.';

-- Volatile, so each call sees and locks the newest row: concurrent claims share one window exactly.
create function apipay._take_quota(account_name text, wanted int, purpose text, second bigint) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  account apipay.accounts;
  used int[];
  granted int;
begin
  if wanted <= 0 or (select stopped from apipay._control) then
    return 0;
  end if;
  select * into account from apipay.accounts where name = account_name for no key update;
  if not found
     or (account.state = 'parked' and purpose <> 'probe')
     or account.blocked_until > clock_timestamp() then
    return 0;
  end if;
  used := apipay._quota_slide(account.quota_used, account.quota_second, second);
  granted := greatest(0, least(wanted::bigint,
    account.requests_per_minute - apipay._quota_sum(used)
    - case when purpose = 'send' then apipay._quota_reserve(account.requests_per_minute) else 0 end));
  if granted > 0 then
    used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + granted;
    update apipay.accounts
       set quota_used = used, quota_second = apipay._quota_newest(quota_second, second),
           claimed_at = case when purpose = 'send' then clock_timestamp() else claimed_at end
     where name = account_name;
  end if;
  return granted;
end $$;
comment on function apipay._take_quota(text, int, text, bigint) is
  'Takes up to wanted requests from the account''s quota for send, lookup, follow or probe; none while stopped, parked (but the probe) or blocked.';

create function apipay._return_quota(account_name text, unspent int, second bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  -- Given back to the oldest seconds: what stays counted is then never older than what was sent. From the
  -- newest ones it would be a younger request, really sent, that the window forgot too early.
  update apipay.accounts a
     set quota_used = array(
           select n - greatest(0, least(n::bigint, unspent - coalesce(sum(n) over (order by i rows between unbounded preceding and 1 preceding), 0)))
           from unnest(apipay._quota_slide(a.quota_used, a.quota_second, second)) with ordinality as u(n, i)
           order by i)::int[],
         quota_second = apipay._quota_newest(a.quota_second, second)
   where name = account_name and unspent > 0;
end $$;
comment on function apipay._return_quota(text, int, bigint) is 'Gives back quota that was taken for requests of which no byte left.';

create function apipay._correct_quota(account_name text, remaining int, second bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  used int[];
  account apipay.accounts;
  missing bigint;
begin
  select * into account from apipay.accounts where name = account_name for no key update;
  used := apipay._quota_slide(account.quota_used, account.quota_second, second);
  missing := account.requests_per_minute - apipay._quota_sum(used) - remaining;
  if found and missing > 0 then
    used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + missing::int;
    update apipay.accounts
       set quota_used = used, quota_second = apipay._quota_newest(quota_second, second)
     where name = account_name;
  end if;
end $$;
comment on function apipay._correct_quota(text, int, bigint) is
  'The gateway says fewer requests remain than we think: somebody else uses the key. The difference counts as used.';
