-- ARGV: prefix, owner, then the keys that the owner knows
-- Claims whose reply was lost: leased to the owner, and unknown to it.
local known, out = {}, {}
for i = 3, #ARGV do known[ARGV[i]] = true end
for _, key in ipairs(call('SMEMBERS', P .. 'own:' .. ARGV[2])) do
  if not known[key] then out[#out + 1] = told(key, 'attach') end
end
return out
