-- The newest message of a member is found without reading the team's mail: a look at a whole team asks it of each one.

CREATE INDEX team_message_by_sender ON team_message (team_key, sender_agent_id, message_key);
CREATE INDEX team_delivery_by_recipient ON team_delivery (team_key, recipient_agent_id, delivery_key);
