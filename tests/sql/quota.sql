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
  assert apipay._quota_share(60) = 10 and apipay._quota_share(2) = 1 and apipay._quota_share(1) = 0;
end $$;

-- Who gets how much of it.
do $$
declare
  found record;
begin
  for found in
    select c.*, apipay._quota_room(c.purpose, c.per_minute, c.used, c.asked, c.due) as room
    from (values
      -- An idle account: bills may have all of it, asking half, and what comes in numbers leaves the checks a third.
      ('send', 60, 0, 0, 0, 60), ('probe', 60, 0, 0, 0, 60), ('check', 60, 0, 0, 0, 30), ('lookup', 60, 0, 0, 0, 20), ('follow', 60, 0, 0, 0, 20),
      -- The more bills, the less asking, down to its share.
      ('check', 60, 30, 0, 0, 15), ('check', 60, 50, 10, 0, 0), ('check', 60, 50, 9, 0, 1), ('check', 60, 40, 0, 0, 10), ('lookup', 60, 40, 0, 0, 7),
      ('lookup', 60, 27, 7, 0, 7), ('check', 60, 47, 7, 0, 3),
      -- Bills leave nothing to those who do not ask, what is due to those who do, and never more than the share.
      ('send', 60, 59, 0, 0, 1), ('send', 60, 50, 0, 1, 9), ('send', 60, 50, 0, 40, 0), ('send', 60, 45, 0, 40, 5), ('send', 60, 60, 0, 0, 0),
      -- What was asked already is not kept free once more.
      ('send', 60, 50, 10, 40, 10), ('send', 60, 50, 7, 40, 7), ('send', 60, 55, 30, 40, 5),
      -- Full is full; and limits that are small.
      ('check', 60, 60, 0, 0, 0), ('probe', 60, 60, 20, 0, 0), ('check', 60, 70, 0, 0, 0), ('check', 1, 0, 0, 0, 1), ('send', 1, 0, 0, 5, 1),
      ('check', 1, 1, 1, 0, 0), ('lookup', 2, 0, 0, 0, 1), ('check', 2, 1, 0, 0, 1), ('send', 2, 1, 0, 5, 0), ('send', 2, 1, 1, 5, 1)
    ) as c (purpose, per_minute, used, asked, due, expected)
  loop
    assert found.room = found.expected, format('%s', found);
  end loop;
end $$;

insert into apipay.accounts (name, requests_per_minute) values ('default', 60), ('other', 60);

create function pg_temp.quota(account_name text, out used bigint, out asked bigint) language sql as
  'select apipay._quota_sum(q.used), apipay._quota_sum(q.asked) from apipay._quotas q where q.account = account_name';

-- Taken is counted, by its purpose; a check has its turn.
do $$
begin
  assert apipay._take_quota('nobody', 1, 'send', 1000) = 0;
  assert apipay._take_quota('default', 30, 'send', 1000) = 30;
  assert apipay._take_quota('default', 100, 'lookup', 1000) = 10;
  assert pg_temp.quota('default') = (40::bigint, 10::bigint);
  assert apipay._take_check('default', interval '90 s', 1000) and not apipay._take_check('default', interval '90 s', 1000);
  assert pg_temp.quota('default') = (41::bigint, 11::bigint);
  perform apipay._end_check('default', interval '1 s');
  assert not apipay._take_check('default', interval '90 s', 1000);
  perform apipay._end_check('default', interval '-1 ms');
  assert apipay._take_check('default', interval '90 s', 1000);
  -- A moment further away than a check may take was set by another clock.
  update apipay._quotas set check_from = clock_timestamp() + interval '91 s' where account = 'default';
  assert apipay._take_check('default', interval '90 s', 1000);
  update apipay._quotas set check_from = 'infinity' where account = 'default';
  assert apipay._take_check('default', interval '90 s', 1000) and not apipay._take_check('default', interval '90 s', 1000);
  assert pg_temp.quota('default') = (44::bigint, 14::bigint);
  -- Of the share, bills leave free what is due and was not asked yet.
  insert into apipay._quotas (account, used, asked, newest)
  values ('other', array_fill(0, array[65]) || 45, array_fill(0, array[65]) || 4, 1000);
  assert apipay._asking_due('other', 6) = 0;
  insert into apipay.refunds (account, id, invoice_id, status, next_check_at)
  select 'other', n, n, 'pending', now() + case when n > 5 then interval '1 h' else interval '0' end from generate_series(1, 9) as n;
  insert into apipay.invoices (account, id, status, next_check_at) select 'other', n, 'pending', now() from generate_series(1, 9) as n;
  assert apipay._asking_due('other', 100) = 6 and apipay._asking_due('other', 2) = 3;
  update apipay._quotas set check_from = now() + interval '1 s' where account = 'other';
  assert apipay._asking_due('other', 100) = 5;
  assert apipay._take_quota('other', 100, 'send', 1000) = 10;
  update apipay.accounts set requests_per_minute = 1000 where name = 'other';
  assert apipay._take_quota('other', 100, 'send', 1000) = 100;
end $$;

delete from apipay._quotas;

-- Given back is the second in which it was taken, so that the window forgets no request that was sent: 30
-- taken 6 seconds ago and never sent, 30 taken just now and sent.
insert into apipay._quotas (account, used, newest)
values ('default', array_fill(0, array[59]) || 30 || array_fill(0, array[5]) || 30, 1000);

do $$
declare
  used int[];
  second bigint;
begin
  perform apipay._return_quota('default', array_fill(994::bigint, array[30]), 1000);
  select q.used into used from apipay._quotas q;
  assert apipay._quota_sum(used) = 30;
  assert used[66] = 30, format('%s', used);
  -- None of these seconds has anything to give back; they are not taken from another.
  perform apipay._return_quota('default', array[994, 995, 999, 1001, 934, 933, 0, 9223372036854775807], 1000);
  assert (select q.used[66] from apipay._quotas q) = 30;
  perform apipay._return_quota('default', array_fill(1000::bigint, array[1000]), 1000);
  assert apipay._quota_sum((select q.used from apipay._quotas q)) = 0;
  perform apipay._return_quota('default', '{1000}', 1000);
  assert apipay._quota_sum((select q.used from apipay._quotas q)) = 0;
  -- What was asked was asked: only sends are given back.
  assert apipay._take_quota('default', 7, 'lookup', 1000) = 7 and apipay._take_quota('default', 5, 'send', 1000) = 5;
  perform apipay._return_quota('default', array_fill(1000::bigint, array[8]), 1000);
  assert pg_temp.quota('default') = (7::bigint, 7::bigint);

  -- Of several seconds at once, and while they are in the window.
  delete from apipay._quotas;
  assert apipay._take_quota('default', 20, 'send', 1000) = 20 and apipay._take_quota('default', 20, 'send', 1010) = 20;
  perform apipay._return_quota('default', '{1010, 1000, 1010}', 1065);
  assert (select array[q.used[1], q.used[11], q.newest] from apipay._quotas q) = '{19, 18, 1065}';
  -- Told of so late that another minute's requests have left: those stay counted.
  delete from apipay._quotas;
  assert apipay._take_quota('default', 60, 'send', 1000) = 60 and apipay._take_quota('default', 60, 'send', 1070) = 60;
  perform apipay._return_quota('default', array_fill(1000::bigint, array[60]), 1080);
  assert apipay._take_quota('default', 60, 'send', 1080) = 0;

  -- Others use the key, it is not known since when: what is missing comes back bit by bit within the minute.
  delete from apipay._quotas;
  perform apipay._correct_quota('default', 20, null, 1000);
  select q.used, q.newest into used, second from apipay._quotas q;
  assert apipay._quota_sum(used) = 40;
  for later in 0 .. 66 loop
    assert abs(apipay._quota_sum(apipay._quota_slide(used, second, second + later)) - greatest(0, 40 - later * 40 / 60.0)) <= 1, later::text;
  end loop;
  -- The same is told again, and more: the difference counts.
  perform apipay._correct_quota('default', 20, null, 1000);
  perform apipay._correct_quota('default', 30, null, 1000);
  assert apipay._quota_sum((select q.used from apipay._quotas q)) = 40;
  perform apipay._correct_quota('default', 5, null, 1000);
  assert apipay._quota_sum((select q.used from apipay._quotas q)) = 55;
  -- It is known when: then all of it is there again.
  delete from apipay._quotas;
  perform apipay._correct_quota('default', 0, 7, 1000);
  select q.used, q.newest into used, second from apipay._quotas q;
  assert apipay._quota_sum(apipay._quota_slide(used, second, second + 6)) = 60 and apipay._quota_sum(apipay._quota_slide(used, second, second + 7)) = 0;
  delete from apipay._quotas;
  perform apipay._correct_quota('default', 0, 1000, 1000);
  select q.used, q.newest into used, second from apipay._quotas q;
  assert apipay._quota_sum(apipay._quota_slide(used, second, second + 60)) = 0;

  -- What is taken, given back and corrected is counted by the caller's second, whatever the database's clock says.
  delete from apipay._quotas;
  assert apipay._take_quota('default', 60, 'send', 2000) = 60;
  assert apipay._take_quota('default', 1, 'send', 2065) = 0 and apipay._take_quota('default', 1, 'send', 2066) = 1;
  perform apipay._correct_quota('default', 10, 60, 2067);
  assert (select array[q.used[60], q.used[65], q.newest] from apipay._quotas q) = '{49, 1, 2067}';
  -- Left by a clock that was five hours ahead.
  update apipay._quotas set newest = newest + 18000;
  assert apipay._take_quota('default', 11, 'send', 2068) = 10;
  assert (select array[apipay._quota_sum(q.used), q.newest] from apipay._quotas q) = '{60, 2068}';
  update apipay._quotas set newest = newest + 18000;
  perform apipay._return_quota('default', array_fill(2069::bigint, array[10]), 2069);
  assert (select array[apipay._quota_sum(q.used), q.newest] from apipay._quotas q) = '{50, 2069}';
  assert apipay._take_quota('default', 60, 'send', 2134) = 10 and apipay._take_quota('default', 60, 'send', 2135) = 50;
end $$;
