-- The quota's arithmetic: whatever the schedule, no 60 seconds see more requests than the limit,
-- even when each request leaves up to 5 seconds after its quota was taken; and an idle account
-- may use its whole limit at once. Whoever gives the seconds may fall back, by a little or by hours.

do $$
declare
  per_minute int;
  used int[];
  newest bigint;
  real bigint;
  behind bigint;
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
    real := 1800000000 + floor(random() * 1000);
    behind := 0;
    sent := '{}';
    total := 0;
    for step in 1 .. 150 loop
      -- Bursts, idle minutes, and now and then a second that is behind the one before.
      real := real + (array[0, 0, 1, 1, 2, 5, 30, 59, 60, 61, 66, 90])[1 + floor(random() * 12)::int];
      behind := behind + case when random() < 0.1 then (array[1, 3, 10, 11, 12, 65, 3600])[1 + floor(random() * 7)::int] else 0 end;
      second := real - behind;
      wanted := (array[1, 1, 1, 5, 20, 500])[1 + floor(random() * 6)::int];
      used := apipay._quota_slide(used, newest, second);
      newest := apipay._quota_newest(newest, second);
      assert array_length(used, 1) = apipay._quota_seconds();
      granted := greatest(0, least(wanted, per_minute - apipay._quota_sum(used)));
      used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + granted;
      assert apipay._quota_sum(used) <= per_minute;
      -- Taken somewhere in its second, sent up to 5 s later: in tenths of a second.
      if granted > 0 then
        sent := sent || array(select real * 10 + floor(random() * 10)::int + floor(random() * 51)::int from generate_series(1, granted));
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
  assert apipay._quota_slide(array_fill(1, array[66]), 100, 90) = array_fill(1, array[66]), 'a second that is late frees nothing';
  -- A newest second that was an hour ahead: nothing is forgotten too early, and nobody is locked out for an hour.
  assert apipay._quota_newest(100 + 3600, 100) = 100;
  used := apipay._quota_slide(array_fill(1, array[66]), 100 + 3600, 100);
  assert used[66] = 66 and apipay._quota_sum(used) = 66;
  assert apipay._quota_sum(apipay._quota_slide(used, 100, 165)) = 66 and apipay._quota_sum(apipay._quota_slide(used, 100, 166)) = 0;
  assert apipay._quota_newest(9223372036854775807, 100) = 100;
  -- An account whose window was never used, after 2038.
  assert apipay._quota_sum(apipay._quota_slide('{}', 0, 4000000000)) = 0;
  assert apipay._quota_reserve(60) = 10 and apipay._quota_reserve(2) = 1 and apipay._quota_reserve(1) = 0;
end $$;

-- What is given back never makes the window forget a request that was sent later: 30 taken 6 seconds ago
-- and never sent, 30 taken just now and sent.
insert into apipay.accounts (name, quota_used, quota_second)
values ('default', array_fill(0, array[59]) || 30 || array_fill(0, array[5]) || 30, 1000);

do $$
declare
  used int[];
begin
  perform apipay._return_quota('default', 30, 1000);
  select quota_used into used from apipay.accounts;
  assert apipay._quota_sum(used) = 30;
  assert used[66] = 30, format('%s', used);
  perform apipay._return_quota('default', 1000, 1000);
  assert apipay._quota_sum((select quota_used from apipay.accounts)) = 0;
  perform apipay._return_quota('default', 1, 1000);
  assert apipay._quota_sum((select quota_used from apipay.accounts)) = 0;

  -- What is taken, given back and corrected is counted by the caller's second, whatever the database's clock says.
  assert apipay._take_quota('default', 60, 'lookup', 2000) = 60;
  assert apipay._take_quota('default', 1, 'lookup', 2065) = 0 and apipay._take_quota('default', 1, 'lookup', 2066) = 1;
  perform apipay._correct_quota('default', 10, 2067);
  assert (select array[quota_used[66], quota_used[65], quota_second] from apipay.accounts) = '{49, 1, 2067}';
  -- Left by a clock that was five hours ahead.
  update apipay.accounts set quota_second = quota_second + 18000;
  assert apipay._take_quota('default', 11, 'lookup', 2068) = 10;
  assert (select array[apipay._quota_sum(quota_used), quota_second] from apipay.accounts) = '{60, 2068}';
  update apipay.accounts set quota_second = quota_second + 18000;
  perform apipay._return_quota('default', 10, 2069);
  assert (select array[apipay._quota_sum(quota_used), quota_second] from apipay.accounts) = '{50, 2069}';
  assert apipay._take_quota('default', 60, 'lookup', 2134) = 10 and apipay._take_quota('default', 60, 'lookup', 2135) = 50;
end $$;
