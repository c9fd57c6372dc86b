-- ARGV: prefix, owner, lease in ms, then the keys that the owner knows
-- Claims whose reply was lost: leased to the owner, and unknown to it. Each begins anew, under a lease and a fence of its own: nobody may
-- reap what its owner begins to work on, and a Redis that was set back may hold a fence below one that was seen outside.
call('ZREM', P .. 'lease', '') -- opens the gate when memory is full: a first write that frees
local owner, at = ARGV[2], now()
local known, out = {}, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, key in ipairs(call('SMEMBERS', P .. 'own:' .. owner)) do
  if not known[key] then
    out[#out + 1] = own(key, head(key), owner, at)
    call('ZADD', P .. 'lease', num(at + tonumber(ARGV[3])), key)
  end
end
return out
