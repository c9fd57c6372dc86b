-- ARGV: prefix, owner, lease in ms, then the keys that the owner knows
-- Claims whose reply was lost: leased to the owner, and unknown to it. Each begins anew, under a lease and a fence of its own: nobody may
-- reap what its owner begins to work on, and a Redis that was set back may hold a fence below one that was seen outside.
call('ZREM', P .. 'lease', '') -- opens the gate when memory is full: a first write that frees
local at = now()
local known, out = {}, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, key in ipairs(call('SMEMBERS', P .. 'own:' .. ARGV[2])) do
  if not known[key] then
    lease(key, at, ARGV[3])
    out[#out + 1] = told(key, 'attach')
  end
end
return out
