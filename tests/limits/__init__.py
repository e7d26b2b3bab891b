"""What one address may take: rules, real daemons, and floods."""
