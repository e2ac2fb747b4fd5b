"""The newsroom: made-up local news to practise on. Articles, headlines in four styles, and a judge that knows both."""
