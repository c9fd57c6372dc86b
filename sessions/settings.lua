-- KEYS: the settings' hash, the audit stream. ARGV: the version that the change was made to (0: none), the new version, json, secrets (json: name → sealed),
-- the entry for the stream (json; "": none), the lowest id that it keeps.
-- Returns 1 when written, 0 when another change came first.
local have = redis.call('HGET', KEYS[1], 'version') or '0'
if have ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'json', ARGV[3], 'secrets', ARGV[4])
if ARGV[5] ~= '' then redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[6], '*', 'json', ARGV[5]) end
return 1
