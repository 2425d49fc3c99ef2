#!lua flags=allow-oom
-- Writes a part of an event's settlement ahead of it, when it is too large for one call. What no settlement follows expires.
-- KEYS: 1 owner, 2 due, 3 dead, 4 set: the dead letters written, 5 letters, 6 events, 7.. the records of the deliveries
-- ARGV: 1 life of what is written ahead in ms, 2 group, 3 the event's entry, then per delivery: member, record,
--       then per dead letter: delivery's id, letter
-- -> 'WRITTEN', 'LOST', or 'SETTLED' when the event is settled already
if redis.call('EXISTS', KEYS[1]) == 0 then return 'LOST' end
-- A call of a connection that was given up may arrive after the settlement, which took the set away.
if #redis.call('XPENDING', KEYS[6], ARGV[2], ARGV[3], ARGV[3], 1) == 0 then return 'SETTLED' end
local at = 4
for n = 7, #KEYS do
  -- A record that the schedule has already must not expire.
  if redis.call('ZSCORE', KEYS[2], ARGV[at]) then
    redis.call('SET', KEYS[n], ARGV[at + 1])
  else
    redis.call('SET', KEYS[n], ARGV[at + 1], 'PX', ARGV[1])
  end
  at = at + 2
end
for n = at, #ARGV, 2 do
  if redis.call('SISMEMBER', KEYS[4], ARGV[n]) == 0 then
    local letter = redis.call('XADD', KEYS[3], '*', 'd', ARGV[n + 1])
    redis.call('ZADD', KEYS[5], string.match(letter, '^%d+'), ARGV[n])
    redis.call('SADD', KEYS[4], ARGV[n])
  end
end
if at <= #ARGV then redis.call('PEXPIRE', KEYS[4], ARGV[1]) end
return 'WRITTEN'
