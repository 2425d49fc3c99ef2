#!lua flags=allow-oom
-- Makes the group if it is not there, and a consumer in it with its owner key.
-- KEYS: 1 events, 2 owner   ARGV: 1 group, 2 consumer
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM') -- BUSYGROUP: it is there
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'events', 0, 'deliveries', 0)
return 1
