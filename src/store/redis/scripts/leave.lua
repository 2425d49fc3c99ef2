#!lua flags=allow-oom
-- Gives a consumer up: nothing can be settled in its name from here. Removes it when it holds nothing.
-- KEYS: 1 events, 2 owner   ARGV: 1 group, 2 consumer   -> 1 when it still holds entries
redis.call('DEL', KEYS[2])
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err then return 0 end -- no stream, or no group
if #pending > 0 then return 1 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 0
