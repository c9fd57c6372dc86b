-- ARGV: prefix, how many at most, limits of running jobs per user and per group
-- Leases that ran out become orphans, delays that are over become ready, slots that nobody was handed are
-- handed on. Returns in how many ms something is due next, an hour if nothing is.
local at, n = now(), tonumber(ARGV[2])
local expired, orphans = call('ZRANGEBYSCORE', P .. 'lease', '-inf', num(at), 'LIMIT', 0, n), {}
local score, owned = num(at), {} -- owner → keys
for _, key in ipairs(expired) do
  local s = call('HMGET', state(key), 'own', 'takes')
  call('HDEL', state(key), 'own')
  call('HSET', state(key), 'in', 'orphan', 'takes', tonumber(s[2] or '0') + 1)
  owned[s[1]] = owned[s[1]] or {}
  table.insert(owned[s[1]], key)
  orphans[#orphans + 1] = score
  orphans[#orphans + 1] = key
end
for owner, keys in pairs(owned) do many('SREM', 'own:' .. owner, keys) end
many('ZREM', 'lease', expired)
many('ZADD', 'orphan', orphans)
if #expired > 0 then ring() end
for _, key in ipairs(call('ZRANGEBYSCORE', P .. 'delay', '-inf', num(at), 'LIMIT', 0, n)) do
  unplace(key)
  ready(key, head(key)[3])
end
for i, where in ipairs(call('SMEMBERS', P .. 'parks')) do
  if i > n then break end
  local name = string.sub(where, 6)
  local max = tonumber(string.sub(name, 1, 1) == 'u' and ARGV[3] or ARGV[4])
  look('run', {name})
  if not over(name, max) then unpark(name) end
end
save()
local wait = 3600000
for _, where in ipairs({'lease', 'delay'}) do
  local first = call('ZRANGE', P .. where, 0, 0, 'WITHSCORES')
  if #first > 0 then wait = math.min(wait, math.max(tonumber(first[2]) - at, 1)) end
end
return wait
