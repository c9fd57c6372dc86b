-- ARGV: prefix, key. Read-only.
local s = call('HMGET', state(ARGV[2]), 'in', 'run', 'stage', 'att', 'own', 'fence', 'at')
for i = 1, 7 do s[i] = s[i] or '' end
return {s, call('LRANGE', list(ARGV[2]), 0, -1)}
