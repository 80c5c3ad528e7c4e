-- The quota's arithmetic: whatever the schedule, no 60 seconds see more requests than the limit,
-- even when each request leaves up to 5 seconds after its quota was taken; and an idle account
-- may use its whole limit at once.

do $$
declare
  per_minute int;
  used int[];
  newest bigint;
  second bigint;
  wanted int;
  granted int;
  sent bigint[];
  worst bigint;
  total bigint;
begin
  perform setseed(0.42);
  for round in 1 .. 60 loop
    per_minute := 1 + floor(random() * 200);
    used := '{}';
    newest := 0;
    second := 1800000000 + floor(random() * 1000);
    sent := '{}';
    total := 0;
    for step in 1 .. 150 loop
      -- Bursts, idle minutes, and now and then a clock that goes back.
      second := second + (array[0, 0, 1, 1, 2, 5, 30, 59, 60, 61, 66, 90, -3])[1 + floor(random() * 13)::int];
      wanted := (array[1, 1, 1, 5, 20, 500])[1 + floor(random() * 6)::int];
      used := apipay._quota_slide(used, newest, second);
      newest := greatest(newest, second);
      assert array_length(used, 1) = apipay._quota_seconds();
      granted := greatest(0, least(wanted, per_minute - apipay._quota_sum(used)));
      used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + granted;
      assert apipay._quota_sum(used) <= per_minute;
      -- Taken somewhere in its second, sent up to 5 s later: in tenths of a second. When the clock went back,
      -- the true time is at least that of the newest second.
      if granted > 0 then
        sent := sent || array(select newest * 10 + floor(random() * 10)::int + floor(random() * 51)::int from generate_series(1, granted));
        total := total + granted;
      end if;
    end loop;
    select coalesce(max(n), 0) into worst from (
      select count(*) over (order by at range between 599 preceding and current row) as n from unnest(sent) as at) as windows;
    assert worst <= per_minute, format('%s requests in 60 s with a limit of %s', worst, per_minute);
    assert total > per_minute, 'the schedule must have hit the limit';
  end loop;

  assert apipay._quota_sum('{}') = 0 and apipay._quota_sum(apipay._quota_slide('{}', 0, 1800000000)) = 0, 'an idle account has all of it';
  assert apipay._quota_sum(apipay._quota_slide(array_fill(1, array[66]), 100, 100)) = 66;
  assert apipay._quota_sum(apipay._quota_slide(array_fill(1, array[66]), 100, 165)) = 1;
  assert apipay._quota_sum(apipay._quota_slide(array_fill(1, array[66]), 100, 166)) = 0;
  assert apipay._quota_slide(array_fill(1, array[66]), 100, 90) = array_fill(1, array[66]), 'a clock that went back frees nothing';
  -- An account whose window was never used, after 2038.
  assert apipay._quota_sum(apipay._quota_slide('{}', 0, 4000000000)) = 0;
  assert apipay._quota_reserve(60) = 10 and apipay._quota_reserve(2) = 1 and apipay._quota_reserve(1) = 0;
end $$;

-- What is given back never makes the window forget a request that was sent later: 30 taken 6 seconds ago
-- and never sent, 30 taken just now and sent.
insert into apipay.accounts (name, quota_used, quota_second)
values ('default', array_fill(0, array[59]) || 30 || array_fill(0, array[5]) || 30, floor(extract(epoch from clock_timestamp())));

do $$
declare
  used int[];
begin
  perform apipay._return_quota('default', 30);
  select quota_used into used from apipay.accounts;
  assert apipay._quota_sum(used) = 30;
  -- Near the end, should a second or two have passed meanwhile.
  assert apipay._quota_sum(used[62:66]) = 30, format('%s', used);
  perform apipay._return_quota('default', 1000);
  assert apipay._quota_sum((select quota_used from apipay.accounts)) = 0;
  perform apipay._return_quota('default', 1);
  assert apipay._quota_sum((select quota_used from apipay.accounts)) = 0;
end $$;
