-- The router's commit of what it has learned of the Access Monitoring Rules, and the event's acknowledgement.
-- Entries of the stream take effect in their order: one that comes after a later one was committed changes nothing.
--
-- KEYS  from OWN_KEYS + 1 on: the rules · the stream of events
-- ARGV  8 group · 9 entry of the event · 10 what happens: 'replace' all, 'withhold' all, 'put' one or 'delete' one
--       then pairs of field and value; for 'delete' the field alone
-- Gives 1 if the rules have changed, else 0.
local rules, events = KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2]
local group, event, what = ARGV[8], ARGV[9], ARGV[10]

local function is_later(one, other)
    local milliseconds, sequence = string.match(one, '(%d+)-(%d+)')
    local other_milliseconds, other_sequence = string.match(other, '(%d+)-(%d+)')
    if milliseconds ~= other_milliseconds then
        return tonumber(milliseconds) > tonumber(other_milliseconds)
    end
    return tonumber(sequence) > tonumber(other_sequence)
end

redis.call('XACK', events, group, event)
local revision = redis.call('HGET', rules, 'revision')
if revision and not is_later(event, revision) then
    return 0
end
if what == 'withhold' and revision and redis.call('HEXISTS', rules, 'unavailable') == 0 then
    -- That Teleport does not show them now undoes none: what is known of them is better than nothing.
    return 0
elseif what == 'replace' or what == 'withhold' then
    redis.call('DEL', rules)
elseif not revision or redis.call('HEXISTS', rules, 'unavailable') == 1 then
    -- One rule alone says nothing while the others are not known: a listing will follow.
    return 0
end
if what == 'delete' then
    redis.call('HDEL', rules, ARGV[11])
else
    for position = 11, #ARGV, 2 do
        redis.call('HSET', rules, ARGV[position], ARGV[position + 1])
    end
end
redis.call('HSET', rules, 'revision', event)
return 1
