"""Posts of social networks: files, fields, cleaning and rules about authors."""
