#!lua flags=allow-oom
-- Takes a dead consumer's entries over, in chunks. Its owner key goes first: a late settlement of it is refused whole.
-- KEYS: 1 events, 2 owner (the dead one), 3 owner (the caller)   ARGV: 1 group, 2 the dead one, 3 the caller, 4 limit
-- -> how many were taken over; 0 when nothing was left, and then the consumer is gone; -1 when the caller was taken over itself
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
redis.call('DEL', KEYS[2])
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  return 0
end
local arguments = {}
for n, entry in ipairs(pending) do arguments[n] = entry[1] end
arguments[#arguments + 1] = 'JUSTID'
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, unpack(arguments))
return #pending
