#!lua flags=allow-oom
-- Writes the layout at first use, makes a store of layout 1 one of 2, and reads it.   KEYS: 1 meta   ARGV: 1 layout, 2 partitions, 3 ids bucket ms
-- -> {layout, partitions, ids bucket ms}
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'partitions', ARGV[2], 'ids_bucket_ms', ARGV[3], 'created', redis.call('TIME')[1])
elseif ARGV[1] == '2' and redis.call('HGET', KEYS[1], 'layout') == '1' then
  redis.call('HSET', KEYS[1], 'layout', 2)
end
return redis.call('HMGET', KEYS[1], 'layout', 'partitions', 'ids_bucket_ms')
