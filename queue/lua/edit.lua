-- ARGV: prefix, key, id, revision, payload
local key = ARGV[2]
local i, f = find(key, ARGV[3])
if not i then return 'GONE' end
if i == 0 and call('HEXISTS', state(key), 'stage') == 1 then return 'RUNNING' end
if ARGV[4] <= f[5] then return 'OLD' end
f[5], f[6] = ARGV[4], ARGV[5]
call('LSET', list(key), i, join(key, f))
return 'OK'
