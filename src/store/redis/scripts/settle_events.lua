#!lua flags=allow-oom
-- Settles a batch of claimed events of one partition: one fence for the whole batch.
-- KEYS: 1 events, 2 owner, 3 due, 4 dead, 5 outcomes, 6 letters, 7 later, 8.. the records of the deliveries,
--       then the sets of dead letters written ahead
-- ARGV: 1 group, 2 sequence, 3 lease ms, 4 outcomes, 5 count of entries, 6 count of deliveries, 7 count of sets,
--       8 the oldest entry's ms, 9 how soon an outcome is not late, in ms, 10 1 when Redis may have gone back in time,
--       then entry ids, then per delivery: member, wait ms (-1: goes on being held), record ('' when it was written ahead),
--       then for each set how many it has, then per dead letter: delivery's id, letter
-- -> {'LOST'}, {'LATE'}, {'GONE', ids of entries that nobody has claimed (any more)}, {'MISSING'} when what was written ahead is gone, or {'WRITTEN', fence of the deliveries held}
local before = redis.call('HMGET', KEYS[2], 'events', 'fence')
if not before[1] then return {'LOST'} end
if before[1] == ARGV[2] then return {'WRITTEN', tonumber(before[2])} end -- done before; its answer was lost
-- A call of a connection that was given up may arrive after its repetition and after what followed that. Nobody waits for its answer.
if tonumber(before[1]) > tonumber(ARGV[2]) then return {'LATE'} end

-- The owner key says who owns what is claimed. After a fail-over, or a start from a file without its end, an entry may be one
-- that nobody was given yet, or that another was given and has settled: it would be settled twice.
if ARGV[10] == '1' then
  local gone = {'GONE'}
  for n = 11, 10 + ARGV[5] do
    if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[n], ARGV[n], 1) == 0 then gone[#gone + 1] = ARGV[n] end
  end
  if #gone > 1 then return gone end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entries, deliveries, sets = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local held = now + ARGV[3] -- the fraction says who holds them

local at = 11 + entries
for n = 1, deliveries do
  if ARGV[at + n * 3 - 1] == '' and redis.call('EXISTS', KEYS[7 + n]) == 0 then return {'MISSING'} end
end
local counts = at + deliveries * 3
for n = 1, sets do
  if redis.call('SCARD', KEYS[7 + deliveries + n]) < tonumber(ARGV[counts + n - 1]) then return {'MISSING'} end
end

for n = 1, deliveries do
  local wait = tonumber(ARGV[at + 1])
  local score = held
  if wait >= 0 then score = now + wait end
  if ARGV[at + 2] == '' then
    redis.call('PERSIST', KEYS[7 + n])
  else
    redis.call('SET', KEYS[7 + n], ARGV[at + 2])
  end
  redis.call('ZADD', KEYS[3], score, ARGV[at])
  at = at + 3
end
for n = counts + sets, #ARGV, 2 do
  local letter = redis.call('XADD', KEYS[4], '*', 'd', ARGV[n + 1])
  redis.call('ZADD', KEYS[6], string.match(letter, '^%d+'), ARGV[n])
end
if ARGV[4] ~= '' then
  local outcome = redis.call('XADD', KEYS[5], '*', 'o', ARGV[4])
  local written, soon = tonumber(string.match(outcome, '^%d+')), tonumber(ARGV[9])
  -- A reader looks for outcomes right after their events, so only those that came later are written down.
  if written - ARGV[8] > soon then
    local late, last = {}, nil
    for n = 11, 10 + entries do
      local ms = string.match(ARGV[n], '^%d+')
      if ms ~= last and written - ms > soon then
        late[#late + 1] = ms
        late[#late + 1] = ms .. ':' .. outcome
        last = ms
      end
    end
    redis.call('ZADD', KEYS[7], unpack(late))
  end
end
for n = 1, sets do redis.call('UNLINK', KEYS[7 + deliveries + n]) end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 11, 10 + entries))
redis.call('HSET', KEYS[2], 'events', ARGV[2], 'fence', held * 2048)
return {'WRITTEN', held * 2048}
