-- The MCP servers that a workspace declares, and those whose tools each of its agents has.
ALTER TABLE workspaces
    ADD COLUMN mcp_servers json NOT NULL DEFAULT '[]',
    ADD COLUMN connectors json NOT NULL DEFAULT '[]';
