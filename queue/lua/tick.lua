-- ARGV: prefix, how many at most, limits of running jobs per user and per group
-- Leases that ran out become orphans, delays that are over become ready, slots that nobody was handed are
-- handed on.
local at, n = now(), tonumber(ARGV[2])
for _, key in ipairs(call('ZRANGEBYSCORE', P .. 'lease', '-inf', num(at), 'LIMIT', 0, n)) do
  unplace(key)
  disown(key)
  place(key, 'orphan', at)
  ring()
end
for _, key in ipairs(call('ZRANGEBYSCORE', P .. 'delay', '-inf', num(at), 'LIMIT', 0, n)) do
  unplace(key)
  ready(key, split(call('LINDEX', list(key), 0))[3])
end
for i, where in ipairs(call('SMEMBERS', P .. 'parks')) do
  if i > n then break end
  local name = string.sub(where, 6)
  local max = tonumber(string.sub(name, 1, 1) == 'u' and ARGV[3] or ARGV[4])
  if max == 0 or tonumber(call('HGET', P .. 'run', name) or '0') < max then unpark(name) end
end
return 'OK'
