#!lua flags=allow-oom
-- Claims what is due: moves its score to the end of a lease, which is the fence of its settlement. What a call has
-- claimed is noted, so that its repetition is given the same, and a late one of an older call claims nothing.
-- KEYS: 1 due, 2 owner   ARGV: 1 limit, 2 lease ms, its fraction says who claims, 3 number of the call, 4 '1' when it is repeated
-- -> {now, fence, score of the next one or -1, members...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = now + ARGV[2] -- a fraction: claimed, and by whom
local reply = {now, fence * 2048, -1} -- answers have whole numbers only
local noted = redis.call('HMGET', KEYS[2], 'claim', 'claim_fence', 'claimed')
local last, this = tonumber(noted[1] or 0), tonumber(ARGV[3])
if last == this then
  reply[2] = tonumber(noted[2])
  for member in string.gmatch(noted[3], '[^\n]+') do
    local score = redis.call('ZSCORE', KEYS[1], member)
    if score and tonumber(score) == reply[2] / 2048 then reply[#reply + 1] = member end
  end
elseif last < this and tonumber(ARGV[1]) > 0 then
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
  for n, member in ipairs(members) do
    redis.call('ZADD', KEYS[1], 'XX', fence, member)
    reply[3 + n] = member
  end
  -- The key must not come back once another process has taken over.
  if (#members > 0 or ARGV[4] == '1') and redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('HSET', KEYS[2], 'claim', this, 'claim_fence', reply[2], 'claimed', table.concat(members, '\n'))
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then reply[3] = tonumber(first[2]) end
return reply
