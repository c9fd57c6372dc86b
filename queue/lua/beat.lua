-- ARGV: prefix, owner, lease in ms, then for each claim: key, fence
-- Also extends a lease that ran out and was not reaped yet: after an outage owners keep what they have.
call('ZREM', P .. 'lease', '')
local at = now()
local lost, cancelled = {}, {}
for i = 4, #ARGV, 2 do
  local key, fence = ARGV[i], ARGV[i + 1]
  local s = call('HMGET', state(key), 'fence', 'in', 'own', 'cancel')
  if s[1] == fence and s[2] == 'lease' and s[3] == ARGV[2] then
    call('ZADD', P .. 'lease', num(at + tonumber(ARGV[3])), key)
    if s[4] == '1' then cancelled[#cancelled + 1] = key end
  else
    lost[#lost + 1] = key
  end
end
return {lost, cancelled}
