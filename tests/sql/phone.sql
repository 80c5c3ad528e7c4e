-- Phone numbers: the forms that people store become the gateway's form, anything else becomes null,
-- and nothing that looks like one is shown in full.

do $$
declare
  form text;
  masked record;
begin
  foreach form in array array[
    '87001234567', '77001234567', '+77001234567', '+7 700 123-45-67', '8 (700) 123 45 67', '8(700)123-45-67',
    ' 8.700.123.45.67 ', E'+7\u00a0700\u00a0123\u00a045\u00a067', E'8\u202f700\u2009123\u200745 67',
    E'+7\u2011700\u2013123\u201445\u221267', E'8\t700\n1234567', '7 (700) 1234567', '+7(700)-123--45--67'] loop
    assert apipay._phone(form) = '87001234567', format('%s became %s', form, apipay._phone(form));
  end loop;
  foreach form in array array[
    '', '8', '7001234567', '8700123456', '870012345678', '+87001234567', '++77001234567', '7+7001234567', '97001234567',
    '8700123456a', '87001234567 Aida', 'tel:87001234567', '8/700/1234567', '0077001234567', '+1 700 123 45 67',
    E'8700123456\u0661', '87001234567,87007654321', '8700 1234567 ext 1'] loop
    assert apipay._phone(form) is null, format('%s became %s', form, apipay._phone(form));
  end loop;
  assert apipay._phone(null) is null;
  assert apipay._phone(repeat('8', 100000)) is null;

  assert apipay._mask_phone('87001234567') = '8700***4567';
  assert apipay._mask_phone('not one') is null;
  for masked in select * from (values
      ('call 87001234567.', 'call 8700***4567.'), ('+7 700 123-45-67', '8700***4567'), ('8 (700) 123 45 67!', '8700***4567!'),
      ('77001234567,87007654321', '8700***4567,8700***4321'), (E'+7\u00a0700\u00a0123\u00a045\u00a067', '8700***4567'),
      ('the number 7001234567', 'the number 8700***4567'), ('"phone":"87001234567"', '"phone":"8700***4567"'),
      ('tel+77001234567', 'tel8700***4567'),
      ('8_700_123_45_67', '8700***4567'), ('8/700/1234567', '8700***4567'), ('7 0 0 1 2 3 4 5 6 7', '***'),
      ('to 8-7-0-0-1-2-3-4-5-6-7 now', 'to *** now'),
      (E'\u0668\u0667\u0660\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667', E'8\u0667\u0660\u0660***\u0664\u0665\u0666\u0667'),
      (E'\uff18\uff17\uff10\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17', E'8\uff17\uff10\uff10***\uff14\uff15\uff16\uff17'),
      ('sizes 7 8 9 10', 'sizes 7 8 9 10'), ('1 500 000 tenge on 23/11/2026', '1 500 000 tenge on 23/11/2026'),
      ('order 20261123120405', 'order 20261123120405'), ('invoice 123456', 'invoice 123456'), ('2026-11-23 12:04:05', '2026-11-23 12:04:05'),
      ('870012345678', '870012345678'), ('amount 99999999.99', 'amount 99999999.99'), ('', '')) as v (written, shown) loop
    assert apipay._mask_phones(masked.written) = masked.shown,
      format('%s is shown as %s', masked.written, apipay._mask_phones(masked.written));
  end loop;
end $$;
