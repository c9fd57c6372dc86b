-- ARGV: prefix, key, id, fence, stage, att
call('ZREM', P .. 'lease', '') -- opens the gate when memory is full: a first write that frees
local how = holds(ARGV[2], ARGV[3], ARGV[4])
if how == 'OK' then call('HSET', state(ARGV[2]), 'stage', ARGV[5], 'att', ARGV[6]) end
return how
