-- KEYS: the marks. ARGV: team and colon, then for each channel: its id, a ts. A ts is compared as text, since all are of one length.
-- A mark is the first ts and the newest.
for i = 2, #ARGV, 2 do
  local field, ts = ARGV[1] .. ARGV[i], ARGV[i + 1]
  local since, upTo = string.match(redis.call('HGET', KEYS[1], field) or '', '^(%S+) (%S+)$')
  if not since then
    redis.call('HSET', KEYS[1], field, ts .. ' ' .. ts)
  elseif upTo < ts then
    redis.call('HSET', KEYS[1], field, since .. ' ' .. ts)
  end
end
return 1
