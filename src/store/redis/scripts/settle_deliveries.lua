#!lua flags=allow-oom
-- Settles a batch of claimed deliveries of one partition, each fenced by its score.
-- KEYS: 1 owner, 2 due, 3 dead, 4 outcomes, 5 letters, 6 later, 7.. the records of the deliveries
-- ARGV: 1 sequence, then per delivery: member, fence, 'ended' | 'waits' | 'dead', wait ms, outcome, record or dead letter, event's ms
-- -> a string with '1' (written) or '0' (lost) for each
local before = redis.call('HMGET', KEYS[1], 'deliveries', 'written')
if before[1] == ARGV[1] then return before[2] end -- done before; its answer was lost
-- It arrives after its repetition and after what followed that: nobody waits for its answer, and what followed must be remembered.
if before[1] and tonumber(before[1]) > tonumber(ARGV[1]) then return '' end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count, written, outcomes, letters, events = #KEYS - 6, {}, {}, {}, {}
for n = 1, count do
  local at = n * 7 - 5
  local score = redis.call('ZSCORE', KEYS[2], ARGV[at])
  if score and tonumber(score) == ARGV[at + 1] / 2048 then
    if ARGV[at + 2] == 'dead' then letters[#letters + 1] = at end
    if ARGV[at + 4] ~= '' then
      outcomes[#outcomes + 1] = ARGV[at + 4]
      events[#events + 1] = ARGV[at + 6]
    end
    written[n] = '1'
  else
    written[n] = '0'
  end
end
-- What can be refused comes first: a call that ends here has taken nothing out of the schedule.
for _, at in ipairs(letters) do
  local letter = redis.call('XADD', KEYS[3], '*', 'd', ARGV[at + 5])
  redis.call('ZADD', KEYS[5], string.match(letter, '^%d+'), string.match(ARGV[at], '^[^:]+'))
end
if #outcomes > 0 then
  local outcome = redis.call('XADD', KEYS[4], '*', 'o', table.concat(outcomes, '\n'))
  local later = {}
  for _, ms in ipairs(events) do
    later[#later + 1] = ms
    later[#later + 1] = ms .. ':' .. outcome
  end
  redis.call('ZADD', KEYS[6], unpack(later))
end
for n = 1, count do
  local at = n * 7 - 5
  if written[n] == '1' then
    if ARGV[at + 2] == 'waits' then
      redis.call('SET', KEYS[6 + n], ARGV[at + 5])
      redis.call('ZADD', KEYS[2], now + ARGV[at + 3], ARGV[at])
    else
      redis.call('ZREM', KEYS[2], ARGV[at])
      redis.call('UNLINK', KEYS[6 + n])
    end
  end
end
local answer = table.concat(written)
if before[1] then redis.call('HSET', KEYS[1], 'deliveries', ARGV[1], 'written', answer) end
return answer
